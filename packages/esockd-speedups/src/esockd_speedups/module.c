/* The module `esockd_speedups._streams`: finds where Python keeps what the methods read, and makes the methods. */

#include "streams.h"
#include <structmember.h>

Core core;

static const char *const STREAM_NAMES[STREAM_SLOTS] = {
    "bytes_in", "bytes_out", "_chunk", "_closing", "draining", "driver", "_eof", "_eof_sent", "_more", "_reading_paused",
    "_receiver", "_side", "_transport", "_unyielded", "_write_paused",
};
static const char *const SIDE_NAMES[SIDE_SLOTS] = {"loop", "resumes", "spare", "woken"};

/* Find the slots of a class. */
static int
find_slots(PyTypeObject *type, const char *const *names, int count, Py_ssize_t *offsets)
{
    for (int i = 0; i < count; i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)type, names[i]);
        if (found == NULL) {
            PyErr_Clear();
        }
        offsets[i] = 0;
        if (found != NULL && Py_IS_TYPE(found, &PyMemberDescr_Type)) {
            const PyMemberDescrObject *descriptor = (PyMemberDescrObject *)found;
            const PyMemberDef *member = descriptor->d_member;
            if (member->type == T_OBJECT_EX && member->flags == 0
                && PyType_IsSubtype(type, descriptor->d_common.d_type)) {
                offsets[i] = member->offset;
            }
        }
        Py_XDECREF(found);
        if (offsets[i] <= 0) {
            PyErr_Format(PyExc_ImportError, "%s has no slot %s", type->tp_name, names[i]);
            return -1;
        }
    }
    return 0;
}

enum { MAX_WORDS = 64 };

static int
is_visited(PyObject *object, void *sought)
{
    return object == sought;
}

/* Find the one word of an object that was NULL and now refers to something that the object owns; 0 if there is none or
 * more than one, or if it refers to anything but `value`, if that is given. */
static Py_ssize_t
find_word(PyObject *object, void *const *before, PyObject *value)
{
    Py_ssize_t found = 0, words = Py_TYPE(object)->tp_basicsize / (Py_ssize_t)sizeof(void *);
    for (Py_ssize_t i = sizeof(PyObject) / sizeof(void *); i < words; i++) {
        void *now = ((void **)object)[i];
        if (before[i] != NULL || now == NULL || (value != NULL && now != value)
            || !Py_TYPE(object)->tp_traverse(object, is_visited, now)) {
            continue;
        }
        if (found) {
            return 0;
        }
        found = i * (Py_ssize_t)sizeof(void *);
    }
    return found;
}

/* Find where futures keep their callbacks, by adding one to a future twice. */
static int
find_callbacks(PyObject *future, PyObject *callback, PyObject *context)
{
    void *before[MAX_WORDS];
    size_t size = (size_t)Py_TYPE(future)->tp_basicsize;
    PyObject *add = PyObject_GetAttrString(future, "add_done_callback");
    PyObject *names = Py_BuildValue("(s)", "context");
    PyObject *args[] = {callback, context}, *first = NULL, *second = NULL;
    core.callback_at = core.context_at = core.others_at = 0;
    if (add != NULL && names != NULL && size <= sizeof(before) && Py_TYPE(future)->tp_traverse != NULL) {
        memcpy(before, future, size);
        first = PyObject_Vectorcall(add, args, 1, names);
        core.callback_at = find_word(future, before, callback);
        core.context_at = find_word(future, before, context);
        memcpy(before, future, size);
        second = first == NULL ? NULL : PyObject_Vectorcall(add, args, 1, names);
        core.others_at = find_word(future, before, NULL);
    }
    Py_XDECREF(add);
    Py_XDECREF(names);
    Py_XDECREF(first);
    Py_XDECREF(second);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (second == NULL || !core.callback_at || !core.context_at || !core.others_at) {
        PyErr_SetString(PyExc_ImportError, "futures are not as those of CPython");
        return -1;
    }
    return 0;
}

static PyObject *
add_method(PyObject *methods, const char *name, const char *original, vectorcallfunc call)
{
    Method *method = PyObject_GC_New(Method, &MethodType);
    if (method == NULL) {
        return NULL;
    }
    method->call = call;
    method->original = PyObject_GetAttrString((PyObject *)core.stream, original);
    PyObject_GC_Track(method);
    int failed = method->original == NULL || PyDict_SetItemString(methods, name, (PyObject *)method) < 0;
    Py_DECREF(method); /* the dictionary has it */
    return failed ? NULL : method->original;
}

PyDoc_STRVAR(bind_doc,
"Make the methods of the streams of esockd-core, once in a process.\n\n"
"Args:\n"
"    stream: The class of streams.\n"
"    side: The class of what they use of their event loop.\n"
"    future: One that nobody uses, to find where futures keep their callbacks.\n"
"    callback: Added to that future, and never called.\n"
"    context: The context of that callback.\n"
"    scoped_tasks: AnyIO's table of the tasks that are in a cancel scope.\n"
"    current_task: Returns the current task of an event loop.\n"
"    resume: Has a task go on, wherever that is not done here.\n"
"    end_of_stream: What `receive` raises at the end of a stream.\n"
"    read_bytes: The largest read that resumes a task at once.\n"
"    yield_every: How many operations that did not block a task may do in a row.\n"
"    half_a_turn: How many of them a task that was resumed has done.\n\n"
"Returns:\n"
"    The methods by their names.\n\n"
"Raises:\n"
"    ImportError: If the classes or the future are not laid out as expected, or the methods are in use already.");

static PyObject *
bind(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {
        "stream", "side", "future", "callback", "context", "scoped_tasks", "current_task", "resume", "end_of_stream",
        "read_bytes", "yield_every", "half_a_turn", NULL,
    };
    PyObject *future, *callback, *context;
    Core given = {0};
    if (core.receive != NULL) {
        PyErr_SetString(PyExc_ImportError, "the methods are in use already");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!OOOO!OOOnll", keywords, &PyType_Type, &given.stream,
                                     &PyType_Type, &given.side, &future, &callback, &context, &PyDict_Type,
                                     &given.scoped_tasks, &given.current_task, &given.resume, &given.end_of_stream,
                                     &given.read_bytes, &given.yield_every, &given.half_a_turn)) {
        return NULL;
    }
    core = given;
    core.future = Py_TYPE(future);
    PyObject *methods = PyDict_New(), *original = NULL;
    if (methods == NULL || find_slots(core.stream, STREAM_NAMES, STREAM_SLOTS, core.stream_at) < 0
        || find_slots(core.side, SIDE_NAMES, SIDE_SLOTS, core.side_at) < 0
        || find_callbacks(future, callback, context) < 0
        || !add_method(methods, "data_received", "data_received", data_received)
        || !add_method(methods, "receive", "receive", receive) || !add_method(methods, "send", "send", send_later)
        || !add_method(methods, "send_nowait", "send_nowait", send_nowait)
        || !add_method(methods, "__anext__", "__anext__", receive_or_end)
        || !(original = add_method(methods, "_receive", "_receive", receive_or_end))) {
        Py_XDECREF(methods);
        return NULL;
    }
    Py_INCREF(core.stream);
    Py_INCREF(core.side);
    Py_INCREF(core.future);
    Py_INCREF(core.scoped_tasks);
    Py_INCREF(core.current_task);
    Py_INCREF(core.resume);
    Py_INCREF(core.end_of_stream);
    core.receive = Py_NewRef(original);
    return methods;
}

static PyObject *
in_use(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    return PyBool_FromLong(core.receive != NULL);
}

static PyObject *
resuming_now(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromLong(resuming);
}

static PyMethodDef functions[] = {
    {"bind", (PyCFunction)(void (*)(void))bind, METH_VARARGS | METH_KEYWORDS, bind_doc},
    {"in_use", in_use, METH_NOARGS, PyDoc_STR("Whether the streams of esockd-core use the methods of this package, in this process.")},
    {"resuming", resuming_now, METH_NOARGS, PyDoc_STR("How many tasks are being resumed within each other's calls.")},
    {NULL, NULL, 0, NULL},
};

static int
exec_module(PyObject *Py_UNUSED(module))
{
#if defined(Py_GIL_DISABLED)
    PyErr_SetString(PyExc_ImportError, "esockd_speedups needs the GIL");
    return -1;
#elif PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
    PyErr_SetString(PyExc_ImportError, "esockd_speedups is for CPython 3.11 to 3.13");
    return -1;
#else
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) { /* what is found here is kept for the whole process */
        PyErr_SetString(PyExc_ImportError, "esockd_speedups works in the main interpreter only");
        return -1;
    }
    int failed = prepare_names_of_operations() < 0 || prepare_names_of_methods() < 0 || prepare_names_of_steps() < 0
        || PyType_Ready(&MethodType) < 0 || PyType_Ready(&OperationType) < 0;
    return failed ? -1 : 0;
#endif
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* or the import, which is refused, would switch the GIL on */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "esockd_speedups._streams",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__streams(void)
{
    return PyModuleDef_Init(&definition);
}
