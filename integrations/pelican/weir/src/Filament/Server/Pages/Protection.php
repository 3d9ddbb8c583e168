<?php

declare(strict_types=1);

namespace Weir\Pelican\Filament\Server\Pages;

use App\Models\Server;
use Filament\Facades\Filament;
use Filament\Pages\Page;
use Weir\Embed;

/**
 * The protection of the server whose panel is open. The panel has decided already that this user may
 * open this server; that decision is what is signed.
 */
final class Protection extends Page
{
    protected static string|\BackedEnum|null $navigationIcon = 'tabler-shield';

    protected static ?string $slug = 'protection';

    protected static ?int $navigationSort = 40;

    protected string $view = 'weir::protection';

    public static function canAccess(): bool
    {
        return parent::canAccess() && Filament::getTenant() instanceof Server && self::embed()->isConfigured();
    }

    public static function getNavigationLabel(): string
    {
        return 'Protection';
    }

    public function getTitle(): string
    {
        return self::getNavigationLabel();
    }

    /** Signed when the page is drawn, so that an open tab does not carry a lasting right. */
    public function frameAddress(): string
    {
        /** @var Server $server */
        $server = Filament::getTenant();
        $user = Filament::auth()->user();

        return self::embed()->address((string) $server->uuid, (int) $user->id, time());
    }

    private static function embed(): Embed
    {
        return new Embed(
            (string) config('weir.url'),
            (string) config('weir.panel'),
            (string) config('weir.embed_key'),
        );
    }
}
