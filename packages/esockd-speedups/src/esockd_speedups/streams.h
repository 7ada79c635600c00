/* The quick ways of a stream of esockd-core on asyncio and uvloop.
 *
 * Python has every rule. Each function here looks whether the case is the usual one, and does what the method of
 * `AsyncioStream` that it stands for would do, or calls that method before anything has changed. So a change of a rule
 * in core has to be made here as well, where its method is named.
 *
 *     methods.c    data_received, receive, __anext__, send, send_nowait
 *     operation.c  what receive, __anext__ and send return, which is awaited
 *     steps.c      what is done when that is awaited
 *     module.c     finds where Python keeps what is read here
 */

#ifndef ESOCKD_SPEEDUPS_STREAMS_H
#define ESOCKD_SPEEDUPS_STREAMS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The slots of a stream and of its event loop (`AsyncioSide`). The names are in module.c, in the same order. */
enum {
    BYTES_IN, BYTES_OUT, CHUNK, CLOSING, DRAINING, DRIVER, END_OF_INPUT, END_SENT, MORE, READING_PAUSED, RECEIVER, SIDE,
    TRANSPORT, UNYIELDED, WRITE_PAUSED, STREAM_SLOTS
};
enum { LOOP, RESUMES, SPARE, WOKEN, SIDE_SLOTS };

/* What core hands over in `bind`; the references are never given back. */
typedef struct {
    PyTypeObject *stream, *side, *future;
    Py_ssize_t stream_at[STREAM_SLOTS], side_at[SIDE_SLOTS];
    Py_ssize_t callback_at, context_at, others_at; /* in a future: its first callback, the context of that, all others */
    PyObject *scoped_tasks, *current_task, *resume, *receive, *end_of_stream;
    Py_ssize_t read_bytes;
    long yield_every, half_a_turn;
} Core;

extern Core core;
extern int resuming; /* how many tasks are being resumed within each other's calls */

#define AT(object, offset) (*(PyObject **)((char *)(object) + (offset)))
#define OF_STREAM(object, slot) AT(object, core.stream_at[slot])
#define OF_SIDE(object, slot) AT(object, core.side_at[slot])

/* A method of a stream, which looks like the one in Python that it stands for. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *original;
} Method;

typedef enum { CREATED, RUNNING, WAITING, DELEGATED, DONE } State;

/* What `receive`, `__anext__` or `send` returned.
 *
 *     CREATED --> RUNNING --> DONE                      bytes are here, or are taken by the transport
 *                         --> WAITING --> RUNNING       until bytes come; it is the stream's `_receiver`
 *                         --> DELEGATED --> RUNNING     the coroutine of Python does it from here on
 */
typedef struct {
    PyObject_HEAD
    State state;
    PyObject *original;   /* the method in Python */
    PyObject *stream;
    PyObject *item;       /* to send; NULL when receiving */
    PyObject *end;        /* receiving: what is raised at the end of the stream */
    Py_ssize_t max_bytes; /* receiving */
    PyObject *waiter;     /* WAITING: the future that the task waits for */
    PyObject *delegate;   /* DELEGATED: the coroutine */
    PyObject *weak_references;
} Operation;

extern PyTypeObject MethodType, OperationType;

int prepare_names_of_operations(void);
int prepare_names_of_methods(void);
int prepare_names_of_steps(void);

PyObject *new_operation(PyObject *original, PyObject *stream, PyObject *item, PyObject *end, Py_ssize_t max_bytes);

PySendResult begin_receiving(Operation *self, PyObject **result);
PySendResult go_on_receiving(Operation *self, PyObject **result);
PySendResult begin_sending(Operation *self, PyObject **result);

/* The methods. `receive_or_end` is `_receive` and `__anext__`, and `send_later` is `send`. */
PyObject *data_received(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames);
PyObject *receive(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames);
PyObject *receive_or_end(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames);
PyObject *send_later(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames);
PyObject *send_nowait(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames);

int takes_bytes(PyObject *stream, PyObject *item);
int write_bytes(PyObject *stream, PyObject *item);

/* Set a slot, and take the reference to its new value. */
static inline void
set_slot(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    *slot = value;
    Py_XDECREF(old);
}

static inline int
add_to_slot(PyObject **slot, Py_ssize_t count)
{
    PyObject *more = PyLong_FromSsize_t(count);
    PyObject *sum = more == NULL || *slot == NULL ? NULL : PyNumber_Add(*slot, more);
    Py_XDECREF(more);
    if (sum == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_AttributeError, "a counter is missing");
        }
        return -1;
    }
    set_slot(slot, sum);
    return 0;
}

/* What a stream uses of its event loop, borrowed; NULL if it is something else. */
static inline PyObject *
side_of(PyObject *stream)
{
    PyObject *side = OF_STREAM(stream, SIDE);
    return side != NULL && Py_IS_TYPE(side, core.side) ? side : NULL;
}

static inline int
intern(PyObject **name, const char *text)
{
    return *name != NULL || (*name = PyUnicode_InternFromString(text)) != NULL ? 0 : -1;
}

#endif
