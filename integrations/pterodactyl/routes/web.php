<?php

use Illuminate\Support\Facades\Route;
use Pterodactyl\BlueprintFramework\Extensions\weir\ProtectionController;

// Mounted under /extensions/weir. `auth` only says who asks; the controller decides what he may see.
Route::middleware('auth')->get('/servers/{server}', ProtectionController::class)->name('weir.protection');
