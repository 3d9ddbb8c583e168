<x-filament-panels::page>
    <iframe src="{{ $this->frameAddress() }}" title="Protection" sandbox="" referrerpolicy="no-referrer"
        style="width:100%;min-height:70vh;border:0"></iframe>
</x-filament-panels::page>
