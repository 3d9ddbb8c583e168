/*
 * Preloaded into collectors that cannot be told how large a receive buffer to ask for: every UDP
 * socket that they bind gets the one that weir asks for, so that a comparison is one of collectors
 * and not of buffers. Root may exceed net.core.rmem_max.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*next)(int, const struct sockaddr *, socklen_t);
    *(void **)&next = dlsym(RTLD_NEXT, "bind");
    int kind = 0;
    socklen_t size = sizeof kind;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) == 0 && kind == SOCK_DGRAM) {
        int octets = 16 << 20;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets);
    }
    return next(fd, address, length);
}
