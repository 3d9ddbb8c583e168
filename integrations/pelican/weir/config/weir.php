<?php

return [
    // Address of weir's pages for owners, its public_url: https://shield.example.net
    'url' => env('WEIR_URL', ''),
    // Name of this panel in weir's configuration.
    'panel' => env('WEIR_PANEL', ''),
    // The panel's embed_key in weir's configuration: the only secret this plugin holds.
    'embed_key' => env('WEIR_EMBED_KEY', ''),
];
