import React from 'react';
import { ServerContext } from '@/state/server';

/** weir's page for the owner of this server. The panel's own route signs its address anew each time. */
export default () => {
    const uuid = ServerContext.useStoreState((state) => state.server.data!.uuid);

    return (
        <iframe
            src={`/extensions/weir/servers/${uuid}`}
            title={'Protection'}
            sandbox={''}
            referrerPolicy={'no-referrer'}
            style={{ width: '100%', minHeight: '70vh', border: 0 }}
        />
    );
};
