/* The steps of an operation: what is done when it is awaited, and when the task that waits for it goes on. */

#include "streams.h"

static PyObject *name_blocking, *name_create_future, *name_done, *name_receives, *name_take_kept, *name_wait_writable;

int
prepare_names_of_steps(void)
{
    return intern(&name_blocking, "_asyncio_future_blocking") < 0 || intern(&name_create_future, "create_future") < 0
            || intern(&name_done, "done") < 0 || intern(&name_receives, "receives") < 0
            || intern(&name_take_kept, "_take_kept") < 0 || intern(&name_wait_writable, "_wait_writable") < 0
        ? -1
        : 0;
}

/* Left to Python */

static PySendResult
delegate_to(Operation *self, PyObject *coroutine, PyObject **result)
{
    if (coroutine == NULL) {
        self->state = DONE;
        return PYGEN_ERROR;
    }
    self->delegate = coroutine;
    self->state = RUNNING;
    PySendResult sent = PyIter_Send(coroutine, Py_None, result);
    self->state = sent == PYGEN_NEXT ? DELEGATED : DONE;
    return sent;
}

/* All of it is done by Python; nothing has changed yet. */
static PySendResult
leave_to_python(Operation *self, PyObject **result)
{
    if (self->item != NULL) {
        PyObject *args[] = {self->stream, self->item};
        return delegate_to(self, PyObject_Vectorcall(self->original, args, 2, NULL), result);
    }
    PyObject *max_bytes = PyLong_FromSsize_t(self->max_bytes);
    if (max_bytes == NULL) {
        self->state = DONE;
        return PYGEN_ERROR;
    }
    PyObject *args[] = {self->stream, max_bytes, self->end};
    PyObject *coroutine = PyObject_Vectorcall(self->original, args, 3, NULL);
    Py_DECREF(max_bytes);
    return delegate_to(self, coroutine, result);
}

/* Whether the current task may go on without looking for a cancellation or giving way: 1, 0, or -1 for an error. This may
 * run anything: the event loop's code, that of a task of another class, and finalizers. */
static int
may_go_on(PyObject *stream, PyObject *side)
{
    PyObject *counted = OF_STREAM(stream, UNYIELDED);
    if (counted == NULL || !PyLong_CheckExact(counted) || OF_SIDE(side, LOOP) == NULL) {
        return 0;
    }
    long unyielded = PyLong_AsLong(counted);
    if (unyielded < 0 || unyielded >= core.yield_every) {
        PyErr_Clear();
        return 0;
    }
    PyObject *task = PyObject_CallOneArg(core.current_task, OF_SIDE(side, LOOP));
    PyObject *reference = task == NULL ? NULL : PyWeakref_NewRef(task, NULL);
    Py_XDECREF(task);
    int scoped = reference == NULL ? -1 : PyDict_Contains(core.scoped_tasks, reference);
    Py_XDECREF(reference);
    return scoped < 0 ? -1 : !scoped;
}

/* Count that it went on. */
static int
count_turn(PyObject *stream)
{
    return add_to_slot(&OF_STREAM(stream, UNYIELDED), 1);
}

/* Receiving: `_receive` */

static inline int
is_whole(PyObject *stream, PyObject *chunk, Py_ssize_t max_bytes)
{
    return chunk != NULL && PyBytes_CheckExact(chunk) && OF_STREAM(stream, MORE) == Py_None
        && OF_STREAM(stream, READING_PAUSED) == Py_False && PyBytes_GET_SIZE(chunk) <= max_bytes;
}

static inline PyObject *
take_whole(PyObject *stream)
{
    PyObject *chunk = OF_STREAM(stream, CHUNK);
    OF_STREAM(stream, CHUNK) = Py_NewRef(Py_None);
    return chunk;
}

/* A future that is not done, for which nobody waits, and which nobody else has. */
static PyObject *
fresh_future(PyObject *side)
{
    PyObject *future = OF_SIDE(side, SPARE);
    if (future != NULL && Py_IS_TYPE(future, core.future)) {
        OF_SIDE(side, SPARE) = Py_NewRef(Py_None);
        int is_free = AT(future, core.callback_at) == NULL;
        PyObject *done = is_free ? PyObject_CallMethodNoArgs(future, name_done) : Py_NewRef(Py_True);
        if (done == Py_False) {
            Py_DECREF(done);
            return future;
        }
        Py_DECREF(future);
        if (done == NULL) {
            return NULL;
        }
        Py_DECREF(done);
    }
    return PyObject_CallMethodNoArgs(OF_SIDE(side, LOOP), name_create_future);
}

static PySendResult
wait_for_bytes(Operation *self, PyObject *side, PyObject **result)
{
    PyObject *waiter = fresh_future(side);
    if (waiter != NULL && !Py_IS_TYPE(waiter, core.future)) { /* of another class, which may be awaited otherwise */
        Py_DECREF(waiter);
        return leave_to_python(self, result);
    }
    if (waiter == NULL || PyObject_SetAttr(waiter, name_blocking, Py_True) < 0) {
        Py_XDECREF(waiter);
        self->state = DONE;
        return PYGEN_ERROR;
    }
    self->waiter = waiter;
    self->state = WAITING;
    set_slot(&OF_STREAM(self->stream, RECEIVER), Py_NewRef(self));
    *result = Py_NewRef(waiter);
    return PYGEN_NEXT;
}

PySendResult
begin_receiving(Operation *self, PyObject **result)
{
    PyObject *stream = self->stream, *side = side_of(stream), *chunk = OF_STREAM(stream, CHUNK);
    if (side == NULL || chunk == NULL || OF_STREAM(stream, RECEIVER) != Py_None) {
        return leave_to_python(self, result);
    }
    if (chunk != Py_None) {
        int may = is_whole(stream, chunk, self->max_bytes) ? may_go_on(stream, side) : 0;
        if (may > 0 && OF_STREAM(stream, RECEIVER) == Py_None
            && is_whole(stream, OF_STREAM(stream, CHUNK), self->max_bytes)) {
            may = count_turn(stream) < 0 ? -1 : 1;
        }
        else if (may > 0) { /* what was asked has changed it */
            may = 0;
        }
        if (may == 0) {
            return leave_to_python(self, result);
        }
        self->state = DONE;
        if (may < 0) {
            return PYGEN_ERROR;
        }
        *result = take_whole(stream);
        return PYGEN_RETURN;
    }
    PyObject *driver = OF_STREAM(stream, DRIVER);
    if (OF_STREAM(stream, CLOSING) != Py_False || OF_STREAM(stream, END_OF_INPUT) != Py_False
        || OF_STREAM(stream, DRAINING) != Py_False || driver == NULL || OF_SIDE(side, LOOP) == NULL) {
        return leave_to_python(self, result);
    }
    PyObject *receives = PyObject_GetAttr(driver, name_receives);
    if (receives == NULL) {
        self->state = DONE;
        return PYGEN_ERROR;
    }
    Py_DECREF(receives);
    return receives == Py_True ? wait_for_bytes(self, side, result) : leave_to_python(self, result);
}

PySendResult
go_on_receiving(Operation *self, PyObject **result)
{
    PyObject *stream = self->stream, *waiter = self->waiter;
    if (AT(waiter, core.callback_at) != NULL) { /* another task still waits for it */
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return PYGEN_ERROR;
    }
    self->state = DONE;
    self->waiter = NULL;
    set_slot(&OF_STREAM(stream, RECEIVER), Py_NewRef(Py_None));
    Py_DECREF(waiter);
    PyObject *half_a_turn = PyLong_FromLong(core.half_a_turn);
    if (half_a_turn == NULL) {
        return PYGEN_ERROR;
    }
    set_slot(&OF_STREAM(stream, UNYIELDED), half_a_turn);
    PyObject *chunk = OF_STREAM(stream, CHUNK);
    if (chunk == NULL || chunk == Py_None) {
        return leave_to_python(self, result); /* the next round of its loop */
    }
    if (is_whole(stream, chunk, self->max_bytes)) {
        *result = take_whole(stream);
        return PYGEN_RETURN;
    }
    PyObject *max_bytes = PyLong_FromSsize_t(self->max_bytes);
    if (max_bytes != NULL) {
        *result = PyObject_CallMethodOneArg(stream, name_take_kept, max_bytes);
        Py_DECREF(max_bytes);
    }
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* Sending: `send` */

PySendResult
begin_sending(Operation *self, PyObject **result)
{
    PyObject *stream = self->stream, *side = side_of(stream);
    int may = side == NULL ? 0 : may_go_on(stream, side);
    int takes = may > 0 ? takes_bytes(stream, self->item) : may;
    if (takes == 0) {
        return leave_to_python(self, result);
    }
    if (takes < 0 || count_turn(stream) < 0 || write_bytes(stream, self->item) < 0) {
        self->state = DONE;
        return PYGEN_ERROR;
    }
    if (OF_STREAM(stream, WRITE_PAUSED) == Py_True) {
        return delegate_to(self, PyObject_CallMethodNoArgs(stream, name_wait_writable), result);
    }
    self->state = DONE;
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}
