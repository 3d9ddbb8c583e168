<?php

declare(strict_types=1);

// Renders the settings page with real Blade (Debian: php-illuminate-view), with a frame around it as Blueprint's
// installer makes one, and with what the controller passes. As in the panel, a warning is an error.

use Illuminate\Contracts\Encryption\Encrypter;
use Pterodactyl\BlueprintFramework\Extensions\weir\Settings;
use Pterodactyl\BlueprintFramework\Libraries\ExtensionLibrary\Admin\BlueprintAdminLibrary;
use Pterodactyl\Contracts\Repository\SettingsRepositoryInterface;
use Pterodactyl\Http\Controllers\Admin\Extensions\weir\weirExtensionController;
use Pterodactyl\Services\Helpers\SoftwareVersionService;

[, $built, $work] = $argv;
$libraries = '/usr/share/php/Illuminate';
if (!is_file("$libraries/View/autoload.php")) {
    echo "skip: the settings page with Blade: php-illuminate-view is not installed\n";
    exit(0);
}
foreach (['View', 'Filesystem', 'Events', 'Container'] as $library) {
    require_once "$libraries/$library/autoload.php";
}
require __DIR__ . '/contracts.php';
require __DIR__ . '/stubs.php';
require "$built/pterodactyl/app/Settings.php";
require "$built/pterodactyl/admin/controller.php";

if (!function_exists('csrf_field')) {
    function csrf_field(): string
    {
        return '<input name="_token">';
    }

    function method_field(string $method): string
    {
        return "<input name=\"_method\" value=\"$method\">";
    }
}

// Debian's Blade is older than its PHP; its deprecations are not ours.
error_reporting(E_ALL & ~E_DEPRECATED);
set_error_handler(function (int $level, string $text, string $file, int $line): bool {
    if ((error_reporting() & $level) === 0) {
        return false;
    }
    throw new ErrorException($text, 0, $level, $file, $line);
});

$frame = <<<'BLADE'
<h1>@if($blueprint->dbGet('blueprint', 'extensionconfig_weir_adminlayouts') != "0") allowed @endif</h1>
<p>{{ get_class($version) }} {{ count($eggs) }}</p>
BLADE;
$views = "$work/views/admin/extensions/weir";
mkdir($views, 0700, true);
mkdir("$work/compiled", 0700);
file_put_contents("$views/index.blade.php", $frame . file_get_contents("$built/pterodactyl/admin/view.blade.php"));

$files = new Illuminate\Filesystem\Filesystem();
$compiler = new Illuminate\View\Compilers\BladeCompiler($files, "$work/compiled");
$engines = new Illuminate\View\Engines\EngineResolver();
$engines->register('blade', fn () => new Illuminate\View\Engines\CompilerEngine($compiler));
$finder = new Illuminate\View\FileViewFinder($files, ["$work/views"]);
$factory = new Illuminate\View\Factory($engines, $finder, new Illuminate\Events\Dispatcher());

$repository = new class () implements SettingsRepositoryInterface {
    public function set(string $key, ?string $value = null)
    {
    }

    public function get(string $key, mixed $default): mixed
    {
        return ['weir::url' => 'https://shield.example.net', 'weir::panel' => '<main>'][$key] ?? $default;
    }
};
$encrypter = new class () implements Encrypter {
    public function encrypt($value, $serialize = true)
    {
        return $value;
    }

    public function decrypt($payload, $unserialize = true)
    {
        return $payload;
    }
};
$controller = new weirExtensionController(
    $factory,
    new Settings($repository, $encrypter),
    new BlueprintAdminLibrary(),
    new SoftwareVersionService(),
);
$page = $controller->index()->render();
foreach (['allowed', 'https://shield.example.net', '&lt;main&gt;', '/admin/extensions/weir', 'PATCH'] as $wanted) {
    if (!str_contains($page, $wanted)) {
        fwrite(STDERR, "failed: the settings page has no $wanted\n$page\n");
        exit(1);
    }
}
