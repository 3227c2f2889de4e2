/* session.h - which instances of a model version share a session of the engine.
 *
 * A session holds the weights and, unless told otherwise, no thread: it computes on
 * the thread that calls it, and several may call at once. So instances share one,
 * and cost no more than their own buffers. Two things forbid it:
 *
 *   processors   Instances bound to different processors each want the weights near
 *                theirs: a session is made on the thread of its first instance, which
 *                is bound already, and is for instances bound alike.
 *   threads      A session with threads of its own (intra_op_thread_count and the
 *                like) made them with its creator's processors and priority. They
 *                are counted per instance, as in Triton, so it has one user.
 *
 * The session that was made to read the model's signature, on the thread that loads,
 * is the first instance's where it fits, and goes where it does not.
 *
 * Threads: any.
 */
#ifndef SESSION_H
#define SESSION_H

#include "onnxruntime/engine.h"

struct model;
struct sessions;

/* Makes a session for model, with the options that its configuration asks for. */
typedef TRITONSERVER_Error *session_create_fn(const struct model *model, OrtSession **ret_handle);

/* own_threads: the sessions that create makes have threads. */
MUST_USE TRITONSERVER_Error *sessions_create(const struct model *model, session_create_fn *create,
                                             bool own_threads, struct sessions **ret_sessions);

/* Ends all sessions, which nobody uses any more; NULL is fine. */
void sessions_destroy(struct sessions *sessions);

/* A session to read the model's signature from; valid until the first session_take(). */
MUST_USE TRITONSERVER_Error *sessions_first(struct sessions *sessions, OrtSession **ret_handle);

/* Finds or makes a session for the calling thread. */
MUST_USE TRITONSERVER_Error *session_take(struct sessions *sessions, OrtSession **ret_handle);

/* Ends a use; NULL is fine. */
void session_release(struct sessions *sessions, OrtSession *handle);

#endif
