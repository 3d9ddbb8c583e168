import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

// A table that scrolls sideways must be reachable by keyboard, so it takes the focus; axe asks for that,
// Svelte's linter warns of it.
const warningFilter = (warning) => warning.code !== "a11y_no_noninteractive_tabindex";

export default { preprocess: vitePreprocess(), compilerOptions: { runes: true, warningFilter } };
