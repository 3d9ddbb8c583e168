<?php

declare(strict_types=1);

namespace Weir;

/**
 * Signs the address of a server's protection page for five minutes.
 *
 * Form: hex(JSON) "." hex(HMAC-SHA-256(key, hex(JSON))). The key opens views of owners and nothing
 * else; weir checks on every request that the server still exists.
 */
final class Embed
{
    public const LIFE_SECS = 300;

    public function __construct(
        private readonly string $url,
        private readonly string $panel,
        #[\SensitiveParameter] private readonly string $key,
    ) {
    }

    /** Whether everything is set, so that a page can say what is missing instead of failing. */
    public function isConfigured(): bool
    {
        return self::isWebAddress($this->url)
            && preg_match('/^[A-Za-z0-9_-]{1,64}$/', $this->panel) === 1
            && strlen($this->key) >= 20;
    }

    /** The origin that a frame is loaded from, for a content security policy. */
    public function origin(): string
    {
        $parts = parse_url($this->url);
        $port = isset($parts['port']) ? ':' . $parts['port'] : '';

        return $parts['scheme'] . '://' . $parts['host'] . $port;
    }

    public function address(string $server, int $user, int $now): string
    {
        $claims = json_encode([
            'panel' => $this->panel,
            'server' => $server,
            'user' => $user,
            'exp' => $now + self::LIFE_SECS,
        ], JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES);
        $payload = bin2hex($claims);
        $token = $payload . '.' . hash_hmac('sha256', $payload, $this->key);

        return rtrim($this->url, '/') . '/embed/' . $this->panel . '?t=' . $token;
    }

    private static function isWebAddress(string $url): bool
    {
        $parts = parse_url($url);

        return is_array($parts)
            && in_array($parts['scheme'] ?? '', ['https', 'http'], true)
            && ($parts['host'] ?? '') !== ''
            && !isset($parts['query'], $parts['fragment']);
    }
}
