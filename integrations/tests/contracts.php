<?php

// What the panels ask of an extension and hand to it, with source and version: a class that does not meet these
// is a fatal error in the panel, on every page. Only declarations; behaviour is in stubs.php.
//
// `integrations/tests/compare FOLDER` says where a panel's own files differ from these.

// pelican-dev/panel 1.0.0-beta36 (2026-07-17) and later, app/Contracts/Plugins/HasPluginSettings.php.
// getSettingsFormData() is new in beta36; older panels do not call it.

namespace App\Contracts\Plugins {
    interface HasPluginSettings
    {
        public function getSettingsFormData(): array;

        public function getSettingsForm(): array;

        public function saveSettings(array $data): void;
    }
}

// filament/filament 4.x, packages/panels/src/Contracts/Plugin.php.

namespace Filament\Contracts {
    interface Plugin
    {
        public function getId(): string;

        public function register(\Filament\Panel $panel): void;

        public function boot(\Filament\Panel $panel): void;
    }
}

// filament/filament 4.x, packages/panels/src/Pages/Page.php and BasePage.php with their traits: the members that
// the page redeclares. A type that differs is as fatal as a method that is missing.

namespace Filament\Pages {
    abstract class Page
    {
        protected static string | \BackedEnum | null $navigationIcon = null;

        protected static ?int $navigationSort = null;

        protected static ?string $slug = null;

        protected string $view;

        public static function canAccess(): bool
        {
            return true;
        }

        public static function getNavigationLabel(): string
        {
            return '';
        }

        public function getTitle(): string | \Illuminate\Contracts\Support\Htmlable
        {
            return '';
        }
    }
}

// BlueprintFramework/framework beta-2026-01,
// app/BlueprintFramework/Libraries/ExtensionLibrary/Admin/BlueprintAdminLibrary.php: the view that Blueprint builds
// around an extension's own asks `$blueprint` for its settings. Its default controller passes `blueprint`,
// `version`, `eggs` and `root` (blueprint/extensions/blueprint/private/build/extensions/controller.build).

namespace Pterodactyl\BlueprintFramework\Libraries\ExtensionLibrary\Admin {
    class BlueprintAdminLibrary
    {
        public function dbGet($table, $record)
        {
            return null;
        }
    }
}

// pterodactyl/panel 1.11, app/Contracts/Repository/SettingsRepositoryInterface.php.

namespace Pterodactyl\Contracts\Repository {
    interface SettingsRepositoryInterface
    {
        public function set(string $key, ?string $value = null);

        public function get(string $key, mixed $default): mixed;
    }
}
