#include "onnxruntime/session.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "onnxruntime/model.h"

/* What an engine's threads and memory take over from the thread that makes the session. */
struct origin {
    cpu_set_t processors;
    int nice;
};

struct session {
    struct session *next;
    OrtSession *handle;
    struct origin origin;
    uint32_t user_count;
};

struct sessions {
    /* set by sessions_create(), then constant */
    const struct model *model;
    session_create_fn *create;
    bool own_threads;
    /* any thread, under lock */
    pthread_mutex_t lock;
    struct session *list;
};

static struct origin read_origin(void)
{
    struct origin origin;

    CPU_ZERO(&origin.processors); /* stays so on a machine with more than this holds */
    sched_getaffinity(0, sizeof origin.processors, &origin.processors);
    origin.nice = getpriority(PRIO_PROCESS, 0); /* of the calling thread, on Linux */
    return origin;
}

static bool fits(const struct sessions *sessions, const struct session *session,
                 const struct origin *origin)
{
    if (!CPU_EQUAL(&session->origin.processors, &origin->processors))
        return false;
    return !sessions->own_threads ||
           (session->user_count == 0 && session->origin.nice == origin->nice);
}

static void destroy(const struct sessions *sessions, struct session *session)
{
    sessions->model->engine->api.ReleaseSession(session->handle);
    free(session);
}

/* Ends the sessions that nobody uses. */
static void drop_idle(struct sessions *sessions)
{
    struct session **at = &sessions->list;

    while (*at) {
        struct session *session = *at;

        if (session->user_count) {
            at = &session->next;
            continue;
        }
        *at = session->next;
        destroy(sessions, session);
    }
}

static TRITONSERVER_Error *make(const struct sessions *sessions, const struct origin *origin,
                                struct session **ret_session)
{
    struct session *session = calloc(1, sizeof *session);
    TRITONSERVER_Error *err;

    if (!session)
        return kit_error_memory(sizeof *session, "a session");
    session->origin = *origin;
    err = sessions->create(sessions->model, &session->handle);
    if (err) {
        free(session);
        return err;
    }
    *ret_session = session;
    return NULL;
}

static void add(struct sessions *sessions, struct session *session)
{
    session->next = sessions->list;
    sessions->list = session;
}

TRITONSERVER_Error *sessions_create(const struct model *model, session_create_fn *create,
                                    bool own_threads, struct sessions **ret_sessions)
{
    struct sessions *sessions = calloc(1, sizeof *sessions);

    if (!sessions)
        return kit_error_memory(sizeof *sessions, "sessions");
    sessions->model = model;
    sessions->create = create;
    sessions->own_threads = own_threads;
    pthread_mutex_init(&sessions->lock, NULL);
    *ret_sessions = sessions;
    return NULL;
}

void sessions_destroy(struct sessions *sessions)
{
    if (!sessions)
        return;
    drop_idle(sessions);
    pthread_mutex_destroy(&sessions->lock);
    free(sessions);
}

TRITONSERVER_Error *sessions_first(struct sessions *sessions, OrtSession **ret_handle)
{
    struct origin origin = read_origin();
    struct session *session;
    TRITONSERVER_Error *err = make(sessions, &origin, &session);

    if (err)
        return err;
    add(sessions, session);
    *ret_handle = session->handle;
    return NULL;
}

TRITONSERVER_Error *session_take(struct sessions *sessions, OrtSession **ret_handle)
{
    struct origin origin = read_origin();
    struct session *session;
    TRITONSERVER_Error *err = NULL;

    pthread_mutex_lock(&sessions->lock);
    session = sessions->list;
    while (session && !fits(sessions, session, &origin))
        session = session->next;
    if (!session) {
        /* Before the new one is made: the weights may be large. */
        drop_idle(sessions);
        err = make(sessions, &origin, &session);
        if (!err)
            add(sessions, session);
    }
    if (!err) {
        session->user_count++;
        *ret_handle = session->handle;
    }
    pthread_mutex_unlock(&sessions->lock);
    return err;
}

void session_release(struct sessions *sessions, OrtSession *handle)
{
    struct session *session;

    if (!handle)
        return;
    pthread_mutex_lock(&sessions->lock);
    for (session = sessions->list; session->handle != handle;)
        session = session->next;
    session->user_count--;
    /* The last one stays for the next instance: loading costs more than keeping. */
    if (sessions->list->next)
        drop_idle(sessions);
    pthread_mutex_unlock(&sessions->lock);
}
