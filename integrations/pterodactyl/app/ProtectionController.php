<?php

declare(strict_types=1);

namespace Pterodactyl\BlueprintFramework\Extensions\weir;

use Illuminate\Http\RedirectResponse;
use Illuminate\Http\Request;
use Pterodactyl\Http\Controllers\Controller;
use Pterodactyl\Models\Server;
use Symfony\Component\HttpKernel\Exception\NotFoundHttpException;

/**
 * Sends whoever may see a server to its protection page. Being logged in is not enough: the server
 * has to be his, shared with him, or he an administrator. Everything else is a 404, so that nobody
 * learns which servers exist.
 */
final class ProtectionController extends Controller
{
    public function __construct(private readonly Settings $settings)
    {
    }

    public function __invoke(Request $request, string $server): RedirectResponse
    {
        $user = $request->user();
        $found = Server::query()->where('uuid', $server)->orWhere('uuidShort', $server)->first();
        $embed = $this->settings->embed();
        if ($user === null || $found === null || !$embed->isConfigured()) {
            throw new NotFoundHttpException();
        }
        $allowed = $user->root_admin
            || (int) $found->owner_id === (int) $user->id
            || $found->subusers()->where('user_id', $user->id)->exists();
        if (!$allowed) {
            throw new NotFoundHttpException();
        }

        return new RedirectResponse(
            $embed->address((string) $found->uuid, (int) $user->id, time()),
            302,
            ['Cache-Control' => 'no-store', 'Referrer-Policy' => 'no-referrer'],
        );
    }
}
