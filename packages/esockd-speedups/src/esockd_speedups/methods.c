/* The methods of a stream. Each does what is usual, and calls the method in Python for everything else. */

#include "streams.h"
#include <stddef.h>

int resuming;

static PyObject *name_data_received, *name_end_program, *name_is_closing, *name_write;

int
prepare_names_of_methods(void)
{
    return intern(&name_data_received, "data_received") < 0 || intern(&name_end_program, "end_program") < 0
            || intern(&name_is_closing, "is_closing") < 0 || intern(&name_write, "write") < 0
        ? -1
        : 0;
}

#define ORIGINAL(method) (((Method *)(method))->original)
#define IS_STREAM(object) PyObject_TypeCheck(object, core.stream)
#define LEAVE_TO_PYTHON return PyObject_Vectorcall(ORIGINAL(method), args, nargsf, kwnames)

/* Receiving */

/* The number that was given for the most bytes to receive; 0 if it is not a whole number above zero. */
static Py_ssize_t
max_bytes_of(PyObject *given)
{
    Py_ssize_t max_bytes = PyLong_CheckExact(given) ? PyLong_AsSsize_t(given) : 0;
    if (max_bytes < 1) {
        PyErr_Clear();
        return 0;
    }
    return max_bytes;
}

PyObject *
receive(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (kwnames != NULL || count < 1 || count > 2 || !IS_STREAM(args[0])) {
        LEAVE_TO_PYTHON;
    }
    Py_ssize_t max_bytes = count > 1 ? max_bytes_of(args[1]) : core.read_bytes;
    if (!max_bytes) {
        LEAVE_TO_PYTHON;
    }
    return new_operation(core.receive, args[0], NULL, core.end_of_stream, max_bytes);
}

/* `_receive` and `__anext__` */
PyObject *
receive_or_end(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (kwnames != NULL || count < 1 || count > 3 || !IS_STREAM(args[0])) {
        LEAVE_TO_PYTHON;
    }
    Py_ssize_t max_bytes = count > 1 ? max_bytes_of(args[1]) : PY_SSIZE_T_MAX;
    if (!max_bytes) {
        LEAVE_TO_PYTHON;
    }
    return new_operation(core.receive, args[0], NULL, count > 2 ? args[2] : PyExc_StopAsyncIteration, max_bytes);
}

/* Sending */

/* Whether a stream takes what is written as it usually does: 1, 0, or -1 for an error. The transport is asked first: on
 * asyncio it answers in Python, where anything may happen, such as a finalizer that closes the stream. */
int
takes_bytes(PyObject *stream, PyObject *item)
{
    if (!PyBytes_CheckExact(item) || OF_STREAM(stream, TRANSPORT) == NULL) {
        return 0;
    }
    PyObject *transport = Py_NewRef(OF_STREAM(stream, TRANSPORT));
    PyObject *closing = PyObject_CallMethodNoArgs(transport, name_is_closing);
    int same = transport == OF_STREAM(stream, TRANSPORT);
    Py_DECREF(transport);
    if (closing == NULL) {
        return -1;
    }
    Py_DECREF(closing);
    return same && closing == Py_False && OF_STREAM(stream, WRITE_PAUSED) == Py_False
        && OF_STREAM(stream, CLOSING) == Py_False && OF_STREAM(stream, END_SENT) == Py_False;
}

int
write_bytes(PyObject *stream, PyObject *item)
{
    if (add_to_slot(&OF_STREAM(stream, BYTES_OUT), PyBytes_GET_SIZE(item)) < 0) {
        return -1;
    }
    PyObject *transport = Py_NewRef(OF_STREAM(stream, TRANSPORT));
    PyObject *written = PyObject_CallMethodOneArg(transport, name_write, item);
    Py_DECREF(transport);
    Py_XDECREF(written);
    return written == NULL ? -1 : 0;
}

/* `send`, which does nothing before it is awaited */
PyObject *
send_later(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (kwnames != NULL || PyVectorcall_NARGS(nargsf) != 2 || !IS_STREAM(args[0])) {
        LEAVE_TO_PYTHON;
    }
    return new_operation(ORIGINAL(method), args[0], args[1], NULL, 0);
}

PyObject *
send_nowait(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (kwnames != NULL || PyVectorcall_NARGS(nargsf) != 2 || !IS_STREAM(args[0])) {
        LEAVE_TO_PYTHON;
    }
    int takes = takes_bytes(args[0], args[1]);
    if (takes == 0) {
        LEAVE_TO_PYTHON;
    }
    if (takes < 0 || write_bytes(args[0], args[1]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What arrives */

/* Do the step of a task that waits for a future, if it may be done here: 1, 0, or -1 for an error. The future is then
 * neither done nor has a callback any more. */
static int
do_step(PyObject *waiter, PyObject *side)
{
    if (!Py_IS_TYPE(waiter, core.future) || OF_SIDE(side, RESUMES) != Py_True || OF_SIDE(side, WOKEN) == NULL
        || AT(waiter, core.others_at) != NULL) {
        return 0;
    }
    PyObject *step = AT(waiter, core.callback_at), *context = AT(waiter, core.context_at);
    if (step == NULL || !PyCFunction_CheckExact(step) || context == NULL || !PyContext_CheckExact(context)) {
        return 0;
    }
    if (PyContext_Enter(context) < 0) {
        PyErr_Clear(); /* within its own context */
        return 0;
    }
    AT(waiter, core.callback_at) = AT(waiter, core.context_at) = NULL;
    resuming++;
    PyObject *done = PyObject_CallOneArg(step, OF_SIDE(side, WOKEN));
    resuming--;
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(done);
    }
    if (done == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError) && AT(waiter, core.callback_at) == NULL
        && AT(waiter, core.context_at) == NULL) {
        PyErr_Clear(); /* within the step of a task: nothing was done */
        AT(waiter, core.callback_at) = step;
        AT(waiter, core.context_at) = context;
        return 0;
    }
    Py_DECREF(step);
    Py_DECREF(context);
    Py_XDECREF(done);
    return done == NULL ? -1 : 1;
}

/* Have the event loop raise an error that ends the program; all others stay. */
static int
end_program(PyObject *side)
{
    if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) && !PyErr_ExceptionMatches(PyExc_SystemExit)) {
        return -1;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    PyObject *told = PyObject_CallMethodOneArg(side, name_end_program, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* See `resume` of core. */
static int
resume(PyObject *receiver, PyObject *side)
{
    PyObject *waiter = ((Operation *)receiver)->waiter;
    if (waiter != NULL) {
        Py_INCREF(waiter);
        int did = do_step(waiter, side);
        if (did > 0 && Py_REFCNT(waiter) == 1 && AT(waiter, core.callback_at) == NULL) {
            set_slot(&OF_SIDE(side, SPARE), waiter); /* it serves another wait: nobody else has it, or could complete it */
        }
        else {
            Py_DECREF(waiter);
        }
        if (did) {
            return did > 0 ? 0 : end_program(side);
        }
    }
    PyObject *args[] = {receiver, side};
    PyObject *done = PyObject_Vectorcall(core.resume, args, 2, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
tell_driver(PyObject *stream, PyObject *data)
{
    PyObject *args[] = {Py_NewRef(OF_STREAM(stream, DRIVER)), stream, data};
    PyObject *done = PyObject_VectorcallMethod(name_data_received, args, 3, NULL);
    Py_DECREF(args[0]);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *
data_received(PyObject *method, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (kwnames != NULL || PyVectorcall_NARGS(nargsf) != 2 || !IS_STREAM(args[0]) || !PyBytes_CheckExact(args[1])) {
        LEAVE_TO_PYTHON;
    }
    PyObject *stream = args[0], *data = args[1], *side = side_of(stream), *receiver = OF_STREAM(stream, RECEIVER);
    if (side == NULL || receiver == NULL || OF_STREAM(stream, CLOSING) != Py_False || OF_STREAM(stream, DRIVER) == NULL) {
        LEAVE_TO_PYTHON;
    }
    int waits = receiver != Py_None;
    if (waits
        && (!Py_IS_TYPE(receiver, &OperationType) || OF_STREAM(stream, CHUNK) != Py_None
            || PyBytes_GET_SIZE(data) > core.read_bytes)) {
        LEAVE_TO_PYTHON;
    }
    if (add_to_slot(&OF_STREAM(stream, BYTES_IN), PyBytes_GET_SIZE(data)) < 0) {
        return NULL;
    }
    if (!waits) {
        if (tell_driver(stream, data) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    set_slot(&OF_STREAM(stream, CHUNK), Py_NewRef(data));
    Py_INCREF(receiver);
    Py_INCREF(side);
    int failed = resume(receiver, side);
    Py_DECREF(receiver);
    Py_DECREF(side);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The type of the methods */

static PyObject *
descr_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyObject *
getattro(PyObject *self, PyObject *name)
{
    return PyObject_GetAttr(ORIGINAL(self), name);
}

static PyObject *
repr(PyObject *self)
{
    return PyObject_Repr(ORIGINAL(self));
}

static int
traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(ORIGINAL(self));
    return 0;
}

static void
dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(ORIGINAL(self));
    PyObject_GC_Del(self);
}

PyTypeObject MethodType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "esockd_speedups.Method",
    .tp_basicsize = sizeof(Method),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
        | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = dealloc,
    .tp_descr_get = descr_get,
    .tp_getattro = getattro,
    .tp_repr = repr,
    .tp_traverse = traverse, /* without tp_clear: whoever has it may call it; the class that it belongs to is cleared */
    .tp_vectorcall_offset = offsetof(Method, call),
};
