/* What `receive`, `__anext__` and `send` return: awaited once, as a coroutine is. */

#include "streams.h"
#include <stddef.h>

enum { KEPT_OPERATIONS = 8 };

/* Those that ended last, for those that begin next. */
static Operation *kept[KEPT_OPERATIONS];
static int kept_count;

static PyObject *name_close, *name_throw;

int
prepare_names_of_operations(void)
{
    return intern(&name_close, "close") < 0 || intern(&name_throw, "throw") < 0 ? -1 : 0;
}

/* Its life */

PyObject *
new_operation(PyObject *original, PyObject *stream, PyObject *item, PyObject *end, Py_ssize_t max_bytes)
{
    Operation *self;
    if (kept_count > 0) {
        self = kept[--kept_count];
        _Py_NewReference((PyObject *)self);
    }
    else {
        self = PyObject_GC_New(Operation, &OperationType);
        if (self == NULL) {
            return NULL;
        }
    }
    self->state = CREATED;
    self->original = Py_NewRef(original);
    self->stream = Py_NewRef(stream);
    self->item = Py_XNewRef(item);
    self->end = Py_XNewRef(end);
    self->max_bytes = max_bytes;
    self->waiter = self->delegate = self->weak_references = NULL;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
traverse(PyObject *object, visitproc visit, void *arg)
{
    Operation *self = (Operation *)object;
    Py_VISIT(self->original);
    Py_VISIT(self->stream);
    Py_VISIT(self->item);
    Py_VISIT(self->end);
    Py_VISIT(self->waiter);
    Py_VISIT(self->delegate);
    return 0;
}

/* What has ended keeps only its name, as a coroutine does. */
static void
let_go(Operation *self)
{
    Py_CLEAR(self->stream);
    Py_CLEAR(self->item);
    Py_CLEAR(self->end);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->delegate);
}

static int
clear(PyObject *object)
{
    Operation *self = (Operation *)object;
    self->state = DONE; /* nobody may go on with what is gone */
    let_go(self);
    Py_CLEAR(self->original);
    return 0;
}

static void
stop_waiting(Operation *self)
{
    PyObject *stream = self->stream;
    self->state = DONE;
    if (stream != NULL && OF_STREAM(stream, RECEIVER) == (PyObject *)self) {
        set_slot(&OF_STREAM(stream, RECEIVER), Py_NewRef(Py_None));
    }
    Py_CLEAR(self->waiter);
}

static int
warn_of_no_await(PyObject *object)
{
    PyObject *name = PyUnicode_FromString("warnings");
    PyObject *warnings = name == NULL ? NULL : PyImport_GetModule(name);
    Py_XDECREF(name);
    if (warnings != NULL) {
        PyObject *warned = PyObject_CallMethod(warnings, "_warn_unawaited_coroutine", "O", object);
        Py_DECREF(warnings);
        Py_XDECREF(warned);
        return warned == NULL ? -1 : 0;
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    /* The interpreter ends, and the module is gone. */
    PyObject *called = PyObject_GetAttrString(((Operation *)object)->original, "__qualname__");
    if (called == NULL) {
        return -1;
    }
    int failed = PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%U' was never awaited", called);
    Py_DECREF(called);
    return failed;
}

static void
finalize(PyObject *object)
{
    Operation *self = (Operation *)object;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (self->state == WAITING) {
        stop_waiting(self);
    }
    else if (self->state == CREATED) { /* as of any coroutine that was never awaited */
        self->state = DONE;
        if (warn_of_no_await(object) < 0) {
            PyErr_WriteUnraisable(object);
        }
    }
    PyErr_Restore(type, value, traceback);
}

static void
dealloc(PyObject *object)
{
    Operation *self = (Operation *)object;
    if ((self->state == CREATED || self->state == WAITING) && PyObject_CallFinalizerFromDealloc(object) < 0) {
        return;
    }
    PyObject_GC_UnTrack(object);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    clear(object);
    if (kept_count < KEPT_OPERATIONS && !PyObject_GC_IsFinalized(object)) {
        kept[kept_count++] = self;
    }
    else {
        PyObject_GC_Del(object);
    }
}

/* What a coroutine has */

static int
may_run(Operation *self)
{
    if (self->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return 0;
    }
    if (self->state == DONE) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return 0;
    }
    return 1;
}

static PySendResult
go_on(Operation *self, PyObject *value, PyObject **result)
{
    if (self->state == WAITING) {
        return go_on_receiving(self, result);
    }
    if (self->state == DELEGATED) {
        self->state = RUNNING;
        PySendResult sent = PyIter_Send(self->delegate, value, result);
        self->state = sent == PYGEN_NEXT ? DELEGATED : DONE;
        return sent;
    }
    if (value != Py_None) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    self->state = RUNNING;
    return self->item != NULL ? begin_sending(self, result) : begin_receiving(self, result);
}

static PySendResult
am_send(PyObject *object, PyObject *value, PyObject **result)
{
    Operation *self = (Operation *)object;
    *result = NULL;
    if (!may_run(self)) {
        return PYGEN_ERROR;
    }
    PySendResult sent = go_on(self, value, result);
    if (self->state == DONE) {
        let_go(self);
    }
    return sent;
}

static PyObject *
send_value(PyObject *object, PyObject *value)
{
    PyObject *result;
    PySendResult sent = am_send(object, value, &result);
    if (sent != PYGEN_RETURN) {
        return sent == PYGEN_NEXT ? result : NULL;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    Py_DECREF(result);
    return NULL;
}

static PyObject *
iternext(PyObject *object)
{
    return send_value(object, Py_None);
}

static PyObject *
throw(PyObject *object, PyObject *args)
{
    Operation *self = (Operation *)object;
    PyObject *type, *value = Py_None, *traceback = Py_None;
    if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback) || !may_run(self)) {
        return NULL;
    }
    if (self->state == DELEGATED) {
        self->state = RUNNING;
        PyObject *method = PyObject_GetAttr(self->delegate, name_throw);
        PyObject *result = method == NULL ? NULL : PyObject_CallObject(method, args);
        Py_XDECREF(method);
        self->state = result == NULL ? DONE : DELEGATED;
        if (result == NULL) {
            let_go(self);
        }
        return result;
    }
    if (self->state == WAITING) {
        stop_waiting(self);
    }
    self->state = DONE;
    let_go(self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_Restore(Py_NewRef(Py_TYPE(type)), Py_NewRef(type), PyException_GetTraceback(type));
    }
    else if (PyExceptionClass_Check(type)) {
        PyErr_Restore(Py_NewRef(type), value == Py_None ? NULL : Py_NewRef(value),
                      PyTraceBack_Check(traceback) ? Py_NewRef(traceback) : NULL);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

static PyObject *
close_it(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    Operation *self = (Operation *)object;
    if (self->state == DONE) {
        Py_RETURN_NONE;
    }
    if (!may_run(self)) {
        return NULL;
    }
    PyObject *result = Py_None;
    if (self->state == DELEGATED) {
        self->state = RUNNING;
        result = PyObject_CallMethodNoArgs(self->delegate, name_close);
    }
    else {
        Py_INCREF(result);
        if (self->state == WAITING) {
            stop_waiting(self);
        }
    }
    self->state = DONE;
    let_go(self);
    return result;
}

static PyObject *
am_await(PyObject *object)
{
    return Py_NewRef(object); /* `anext` with a default asks again for each step */
}

static PyObject *
await_it(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    return am_await(object);
}

static PyObject *
get_of_original(PyObject *object, void *name)
{
    PyObject *original = ((Operation *)object)->original;
    return original == NULL ? Py_NewRef(Py_None) : PyObject_GetAttrString(original, name);
}

static PyObject *
get_none(PyObject *Py_UNUSED(object), void *Py_UNUSED(nothing))
{
    Py_RETURN_NONE;
}

static PyObject *
get_running(PyObject *object, void *Py_UNUSED(nothing))
{
    return PyBool_FromLong(((Operation *)object)->state == RUNNING);
}

static PyObject *
get_suspended(PyObject *object, void *Py_UNUSED(nothing))
{
    State state = ((Operation *)object)->state;
    return PyBool_FromLong(state == WAITING || state == DELEGATED);
}

static PyObject *
get_awaited(PyObject *object, void *Py_UNUSED(nothing))
{
    Operation *self = (Operation *)object;
    return Py_NewRef(self->waiter != NULL ? self->waiter : self->delegate != NULL ? self->delegate : Py_None);
}

/* What Python asks of the receiver of a stream is asked of the future. */
static PyObject *
get_of_waiter(PyObject *object, void *name)
{
    PyObject *waiter = ((Operation *)object)->waiter;
    if (waiter == NULL) {
        PyErr_SetString(PyExc_AttributeError, name);
        return NULL;
    }
    return PyObject_GetAttrString(waiter, name);
}

static PyGetSetDef getset[] = {
    {"__name__", get_of_original, NULL, NULL, "__name__"},
    {"__qualname__", get_of_original, NULL, NULL, "__qualname__"},
    {"cr_code", get_of_original, NULL, NULL, "__code__"},
    {"cr_await", get_awaited, NULL, NULL, NULL},
    {"cr_frame", get_none, NULL, NULL, NULL},
    {"cr_origin", get_none, NULL, NULL, NULL},
    {"cr_running", get_running, NULL, NULL, NULL},
    {"cr_suspended", get_suspended, NULL, NULL, NULL},
    {"_callbacks", get_of_waiter, NULL, NULL, "_callbacks"},
    {"add_done_callback", get_of_waiter, NULL, NULL, "add_done_callback"},
    {"done", get_of_waiter, NULL, NULL, "done"},
    {"remove_done_callback", get_of_waiter, NULL, NULL, "remove_done_callback"},
    {"set_result", get_of_waiter, NULL, NULL, "set_result"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
    {"__await__", await_it, METH_NOARGS, NULL},
    {"close", close_it, METH_NOARGS, NULL},
    {"send", send_value, METH_O, NULL},
    {"throw", throw, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods async_methods = {.am_await = am_await, .am_send = am_send};

PyTypeObject OperationType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "esockd_speedups.Operation",
    .tp_basicsize = sizeof(Operation),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &async_methods,
    .tp_clear = clear,
    .tp_dealloc = dealloc,
    .tp_finalize = finalize,
    .tp_getset = getset,
    .tp_iter = PyObject_SelfIter, /* `yield from` asks for it */
    .tp_iternext = iternext,
    .tp_methods = methods,
    .tp_traverse = traverse,
    .tp_weaklistoffset = offsetof(Operation, weak_references),
};
