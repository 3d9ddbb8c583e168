<?php

declare(strict_types=1);

namespace Weir\Pelican;

use App\Contracts\Plugins\HasPluginSettings;
use App\Traits\EnvironmentWriterTrait;
use Filament\Contracts\Plugin;
use Filament\Forms\Components\TextInput;
use Filament\Notifications\Notification;
use Filament\Panel;
use Weir\Pelican\Filament\Server\Pages\Protection;

/** One page in the panel of a server, and three settings. */
final class WeirPlugin implements HasPluginSettings, Plugin
{
    use EnvironmentWriterTrait;

    public function getId(): string
    {
        return 'weir';
    }

    public function register(Panel $panel): void
    {
        $panel->pages([Protection::class]);
    }

    public function boot(Panel $panel): void
    {
    }

    /** What the form is filled with. Never the key: a form would send it to every administrator's browser. */
    public function getSettingsFormData(): array
    {
        return [
            'url' => config('weir.url'),
            'panel' => config('weir.panel'),
        ];
    }

    public function getSettingsForm(): array
    {
        return [
            TextInput::make('url')
                ->label('Address of weir for owners')
                ->url()
                ->required()
                // Panels before 1.0.0-beta36 know no form data.
                ->default(fn () => config('weir.url')),
            TextInput::make('panel')
                ->label('Name of this panel in weir')
                ->required()
                ->default(fn () => config('weir.panel')),
            TextInput::make('embed_key')
                ->label('Embed key (leave empty to keep it)')
                ->password()
                ->autocomplete(false),
        ];
    }

    public function saveSettings(array $data): void
    {
        $values = [
            'WEIR_URL' => $data['url'],
            'WEIR_PANEL' => $data['panel'],
        ];
        if (($data['embed_key'] ?? '') !== '') {
            $values['WEIR_EMBED_KEY'] = $data['embed_key'];
        }
        $this->writeToEnvironment($values);

        Notification::make()->title('Settings saved')->success()->send();
    }
}
