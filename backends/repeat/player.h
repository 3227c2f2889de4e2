/* repeat/player.h - sends the responses of many requests, each at its time, from one thread.
 *
 * A *play* is one request's responses. Execute makes it, fills it in and puts it; from then on it is
 * the player's, which needs the request no more: it answers through the play's response factory.
 * However many requests are being answered, there is one thread, which sleeps until the next
 * response is due.
 *
 * Bounds: the plays of one player take at most PLAYER_BYTES_MAX.
 * Threads: play_create() to play_put() any; player_create() and player_destroy() one.
 */
#ifndef REPEAT_PLAYER_H
#define REPEAT_PLAYER_H

#include "kit/error.h"

enum {
    PLAYER_BYTES_MAX = 256 * 1024 * 1024
};

struct player;

struct play {
    /* filled in before play_put() */
    TRITONBACKEND_ResponseFactory *factory; /* the play's */
    int32_t *values;                        /* count of them, one response each */
    uint32_t *delays_ms;                    /* count of them, before each response */
    bool wants_out, wants_idx;              /* the outputs that the client asked for */

    /* the player's */
    uint32_t count;
    uint32_t next;    /* the response to come */
    uint64_t due_ns;  /* its time */
    uint64_t wake_ns; /* when to look at the play: then, or earlier for its being cancelled */
    uint64_t turn;    /* among plays of one wake_ns the lower goes first */
    size_t byte_size;
};

/* instance: named in the statistics; must outlive the player. */
MUST_USE TRITONSERVER_Error *player_create(TRITONBACKEND_ModelInstance *instance,
                                           struct player **ret_player);

/* Ends what still plays, each request with the error UNAVAILABLE. NULL is accepted. */
void player_destroy(struct player *player);

/* A play of count responses, its arrays not set yet. UNAVAILABLE when too much plays already. */
MUST_USE TRITONSERVER_Error *play_create(struct player *player, uint32_t count,
                                         struct play **ret_play);

/* Drops a play that was not put, and its factory. */
void play_drop(struct player *player, struct play *play);

/* Plays: the first delay begins now. */
void play_put(struct player *player, struct play *play);

#endif
