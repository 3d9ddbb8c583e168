<form method="POST" action="{{ $root }}">
    @csrf
    @method('PATCH')
    <p><label>Address of weir for owners
        <input class="form-control" name="url" type="url" required value="{{ $url }}"></label></p>
    <p><label>Name of this panel in weir
        <input class="form-control" name="panel" required value="{{ $panel }}"></label></p>
    <p><label>Embed key (leave empty to keep it)
        <input class="form-control" name="embed_key" type="password" autocomplete="off"></label></p>
    <button class="btn btn-primary">Save</button>
</form>
<p>Link owners to <code>/extensions/weir/servers/&lt;id of the server&gt;</code>.</p>
