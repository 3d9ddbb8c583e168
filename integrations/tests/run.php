<?php

declare(strict_types=1);

use Filament\Facades\Filament;
use Illuminate\Contracts\Encryption\DecryptException;
use Illuminate\Contracts\Encryption\Encrypter;
use Illuminate\Http\Request;
use Illuminate\View\Factory;
use Pterodactyl\BlueprintFramework\Extensions\weir\ProtectionController;
use Pterodactyl\BlueprintFramework\Extensions\weir\Settings;
use Pterodactyl\BlueprintFramework\Libraries\ExtensionLibrary\Admin\BlueprintAdminLibrary;
use Pterodactyl\Contracts\Repository\SettingsRepositoryInterface;
use Pterodactyl\Http\Controllers\Admin\Extensions\weir\weirExtensionController;
use Pterodactyl\Models\Server as PterodactylServer;
use Pterodactyl\Services\Helpers\SoftwareVersionService;
use Symfony\Component\HttpKernel\Exception\NotFoundHttpException;
use Weir\Embed;
use Weir\Pelican\Filament\Server\Pages\Protection;
use Weir\Pelican\WeirPlugin;

$built = $argv[1];
require __DIR__ . '/contracts.php';
require __DIR__ . '/stubs.php';
require __DIR__ . '/views.php';
require $built . '/pelican/weir/src/Filament/Server/Pages/Protection.php';
require $built . '/pelican/weir/src/WeirPlugin.php';
if (($argv[2] ?? '') === 'sign') {
    // For the test that lets weir itself check a signature: url panel key server user now
    [, , , $url, $panel, $key, $server, $user, $now] = $argv;
    echo (new Embed($url, $panel, $key))->address($server, (int) $user, (int) $now);
    exit(0);
}

function check(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "failed: $what\n");
        exit(1);
    }
}

const KEY = 'an embed key of some length';
const UUID = '1a7ce997-259b-452e-8b4e-cecc464142c1';

// The signature.
$embed = new Embed('https://shield.example.net/', 'main', KEY);
$address = $embed->address(UUID, 11, 1_795_168_965);
[$base, $token] = explode('?t=', $address);
[$payload, $signature] = explode('.', $token);
check($base === 'https://shield.example.net/embed/main', 'address');
check(hash_hmac('sha256', $payload, KEY) === $signature, 'signature');
$claims = json_decode(hex2bin($payload), true);
check($claims === ['panel' => 'main', 'server' => UUID, 'user' => 11, 'exp' => 1_795_169_265], 'claims');
check($embed->origin() === 'https://shield.example.net', 'origin');
check(!str_contains($address, KEY), 'the key stays');
foreach ([['', 'main', KEY], ['https://x', 'a b', KEY], ['https://x', 'main', 'short'], ['javascript:x', 'main', KEY]] as $wrong) {
    check(!(new Embed(...$wrong))->isConfigured(), 'half a configuration is none');
}

// Pelican.
$plugin = new WeirPlugin();
$panel = new \Filament\Panel();
$plugin->register($panel);
check($plugin->getId() === 'weir' && $panel->pages === [Protection::class], 'the page is registered');
check(!Protection::canAccess(), 'no page without a server');
Filament::$tenant = new \App\Models\Server(UUID);
check(!Protection::canAccess(), 'no page without a configuration');
$GLOBALS['config'] = ['weir.url' => 'https://shield.example.net', 'weir.panel' => 'main', 'weir.embed_key' => KEY];
check(Protection::canAccess(), 'a page');
check(str_starts_with((new Protection())->frameAddress(), 'https://shield.example.net/embed/main?t='), 'frame');
check($plugin->getSettingsFormData() === ['url' => 'https://shield.example.net', 'panel' => 'main'], 'form data without the key');
check(!str_contains(serialize($plugin->getSettingsFormData()), KEY), 'the key is not in the form data');
foreach ($plugin->getSettingsForm() as $field) {
    check($field->name !== 'embed_key' || !isset($field->calls['default']), 'the key is not sent to browsers');
}
$plugin->saveSettings(['url' => 'https://a', 'panel' => 'b', 'embed_key' => '']);
check($GLOBALS['environment'] === ['WEIR_URL' => 'https://a', 'WEIR_PANEL' => 'b'], 'an empty key is kept');
$plugin->saveSettings(['url' => 'https://a', 'panel' => 'b', 'embed_key' => KEY]);
check($GLOBALS['environment']['WEIR_EMBED_KEY'] === KEY, 'a new key is saved');
$manifest = json_decode(file_get_contents($built . '/pelican/weir/plugin.json'), true);
check($manifest['namespace'] . '\\' . $manifest['class'] === WeirPlugin::class, 'the manifest names the class');
check($manifest['id'] === $plugin->getId() && $manifest['panels'] === ['server'], 'the manifest fits');

// Pterodactyl.
require $built . '/pterodactyl/app/Settings.php';
require $built . '/pterodactyl/app/ProtectionController.php';
require $built . '/pterodactyl/admin/controller.php';
$repository = new class () implements SettingsRepositoryInterface {
    public array $values = [];

    public function set(string $key, ?string $value = null)
    {
        $this->values[$key] = $value;
    }

    public function get(string $key, mixed $default): mixed
    {
        return $this->values[$key] ?? $default;
    }
};
$encrypter = new class () implements Encrypter {
    public function encrypt($value, $serialize = true)
    {
        return 'sealed:' . strrev($value);
    }

    public function decrypt($payload, $unserialize = true)
    {
        return str_starts_with($payload, 'sealed:') ? strrev(substr($payload, 7)) : throw new DecryptException('no');
    }
};
$settings = new Settings($repository, $encrypter);
$blueprint = new BlueprintAdminLibrary();
$admin = new weirExtensionController(new Factory(), $settings, $blueprint, new SoftwareVersionService());
$controller = new ProtectionController($settings);
PterodactylServer::$all = [new PterodactylServer(UUID, 11, [12]), new PterodactylServer('2b8df0a8-0000', 13)];
$user = fn (int $id, bool $root = false) => (object) ['id' => $id, 'root_admin' => $root];
$see = function (?object $user, string $server) use ($controller): string {
    try {
        return $controller(new Request($user), $server)->url;
    } catch (NotFoundHttpException) {
        return '404';
    }
};
check($see($user(11), UUID) === '404', 'nothing without a configuration');
$admin->update(new Request(null, ['url' => 'https://shield.example.net', 'panel' => 'main', 'embed_key' => KEY]));
check(!str_contains(implode(' ', $repository->values), KEY), 'the key is kept encrypted');
$admin->update(new Request(null, ['url' => 'https://shield.example.net', 'panel' => 'main', 'embed_key' => null]));
check(!str_contains(serialize($admin->index()), KEY), 'the key is not shown');
check(str_contains($see($user(11), UUID), '/embed/main?t='), 'the owner');
check(str_contains($see($user(12), substr(UUID, 0, 8)), '/embed/main?t='), 'a subuser, by the short number');
check(str_contains($see($user(99, true), UUID), '/embed/main?t='), 'an administrator');
check($see($user(13), UUID) === '404', 'the owner of another server');
check($see($user(11), '2b8df0a8') === '404', 'another one\'s server');
check($see($user(11), 'no-such') === '404', 'a server that does not exist');
check($see(null, UUID) === '404', 'nobody');
$repository->values['weir::embed_key'] = 'broken';
check($see($user(11), UUID) === '404', 'a key that cannot be read');

// What Blueprint's view around the settings page uses has to be there: an undefined variable is a 500.
$passed = $admin->index()->data;
check($passed['blueprint'] === $blueprint, 'the view gets $blueprint');
check(array_diff(['blueprint', 'version', 'eggs', 'root', 'url', 'panel'], array_keys($passed)) === [], 'the view gets all');

// The menu entry: Blueprint refuses a whole extension whose files are not where its settings say.
$read = fn (string $file): string => file_get_contents("$built/pterodactyl/$file");
check(preg_match('/^  components: "(\w+)"$/m', $read('conf.yml'), $folder) === 1, 'conf.yml names the components');
preg_match_all('/^      (?:- )?(\w+): "(.*)"$/m', str_replace('    - ', '      ', $read($folder[1] . '/Components.yml')), $route);
$route = array_combine($route[1], $route[2]);
check($route['Type'] === 'server' && $route['Path'] === '/protection', 'a page of servers');
check(is_file("$built/pterodactyl/{$folder[1]}/{$route['Component']}.tsx"), 'its component is there');
preg_match('/(\/servers\/)\{server\}/', $read('routes/web.php'), $served);
check(str_contains($read("{$folder[1]}/{$route['Component']}.tsx"), '/extensions/weir' . $served[1] . '${uuid}'), 'it asks the route');

echo "ok\n";
