import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// One script and one sheet with a hash in their names, so that browsers may keep them for ever. No
// preload shim and no inlined assets: the page runs under a policy without inline script.
export default defineConfig({
  plugins: [svelte()],
  build: {
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    // A tenth smaller than esbuild's after gzip.
    minify: "terser",
    terserOptions: { ecma: 2020, module: true, compress: { passes: 3, unsafe_arrows: true }, format: { comments: false } },
    reportCompressedSize: true,
    rollupOptions: {
      output: {
        manualChunks: undefined,
        entryFileNames: "assets/weir-[hash].js",
        assetFileNames: "assets/weir-[hash][extname]",
      },
    },
  },
  // `npm run dev` beside a running weir.
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
});
