<?php

declare(strict_types=1);

namespace Pterodactyl\BlueprintFramework\Extensions\weir;

use Illuminate\Contracts\Encryption\DecryptException;
use Illuminate\Contracts\Encryption\Encrypter;
use Pterodactyl\Contracts\Repository\SettingsRepositoryInterface;
use Weir\Embed;

/** What the extension keeps in the panel's settings: the embed key is encrypted with the panel's own key. */
final class Settings
{
    public function __construct(
        private readonly SettingsRepositoryInterface $settings,
        private readonly Encrypter $encrypter,
    ) {
    }

    public function url(): string
    {
        return (string) $this->settings->get('weir::url', '');
    }

    public function panel(): string
    {
        return (string) $this->settings->get('weir::panel', '');
    }

    public function embed(): Embed
    {
        return new Embed($this->url(), $this->panel(), $this->key());
    }

    /** An empty key leaves the old one: forms are never filled with it. */
    public function save(string $url, string $panel, #[\SensitiveParameter] string $key): void
    {
        $this->settings->set('weir::url', $url);
        $this->settings->set('weir::panel', $panel);
        if ($key !== '') {
            $this->settings->set('weir::embed_key', $this->encrypter->encrypt($key));
        }
    }

    private function key(): string
    {
        $kept = (string) $this->settings->get('weir::embed_key', '');
        if ($kept === '') {
            return '';
        }
        try {
            return (string) $this->encrypter->decrypt($kept);
        } catch (DecryptException) {
            // The panel's key was changed: the embed key has to be typed again.
            return '';
        }
    }
}
