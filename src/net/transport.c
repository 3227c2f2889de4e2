#include "net/transport.h"

#include <unistd.h>

static void watch_ready(struct loop_watch *w, unsigned events)
{
    struct transport *t = CONTAINER_OF(w, struct transport, watch);
    t->ready(t, events);
}

void transport_init(struct transport *t, struct loop *loop, int fd,
                    void (*ready)(struct transport *t, unsigned events))
{
    *t = (struct transport){
        .loop = loop,
        .ready = ready,
        .watch = { .fd = fd, .ready = watch_ready },
    };
}

tis_error *transport_start(struct transport *t, unsigned events)
{
    return loop_watch_add(t->loop, &t->watch, events);
}

void transport_close(struct transport *t)
{
    if (!transport_is_open(t))
        return;
    loop_watch_remove(t->loop, &t->watch);
    close(t->watch.fd);
    t->watch.fd = -1;
}

void transport_move(struct transport *to, struct transport *from)
{
    loop_watch_remove(from->loop, &from->watch);
    to->watch.fd = from->watch.fd;
    from->watch.fd = -1;
}

bool transport_end_sending(struct transport *t)
{
    return shutdown(t->watch.fd, SHUT_WR) == 0;
}
