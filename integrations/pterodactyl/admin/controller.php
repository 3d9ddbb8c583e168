<?php

declare(strict_types=1);

namespace Pterodactyl\Http\Controllers\Admin\Extensions\weir;

use Illuminate\Http\RedirectResponse;
use Illuminate\Http\Request;
use Illuminate\View\Factory as ViewFactory;
use Illuminate\View\View;
use Pterodactyl\BlueprintFramework\Extensions\weir\Settings;
use Pterodactyl\BlueprintFramework\Libraries\ExtensionLibrary\Admin\BlueprintAdminLibrary;
use Pterodactyl\Http\Controllers\Controller;
use Pterodactyl\Models\Egg;
use Pterodactyl\Services\Helpers\SoftwareVersionService;

/** Three settings for administrators of the panel. */
final class weirExtensionController extends Controller
{
    public function __construct(
        private readonly ViewFactory $view,
        private readonly Settings $settings,
        private readonly BlueprintAdminLibrary $blueprint,
        private readonly SoftwareVersionService $version,
    ) {
    }

    public function index(): View
    {
        return $this->view->make('admin.extensions.weir.index', [
            // Blueprint builds its own view around this one, and that uses what its default controller passes.
            'blueprint' => $this->blueprint,
            'version' => $this->version,
            'eggs' => Egg::all(),
            'root' => '/admin/extensions/weir',
            'url' => $this->settings->url(),
            'panel' => $this->settings->panel(),
        ]);
    }

    public function update(Request $request): RedirectResponse
    {
        $data = $request->validate([
            'url' => ['required', 'url:https', 'max:191'],
            'panel' => ['required', 'regex:/^[A-Za-z0-9_-]{1,64}$/'],
            'embed_key' => ['nullable', 'string', 'min:20', 'max:191'],
        ]);
        $this->settings->save($data['url'], $data['panel'], (string) ($data['embed_key'] ?? ''));

        return new RedirectResponse('/admin/extensions/weir');
    }
}
