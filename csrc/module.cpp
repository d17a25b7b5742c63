// dropkit.kernels._cpu: the kernel for Python, by the limited API alone. It takes pointers and sizes; it knows no torch.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <pthread.h>

#include <cstring>

#include "dispatch.h"
#include "drop.h"

namespace {

using dropkit::Call;
using dropkit::Dim;
using dropkit::Level;
using dropkit::Walk;

// Chosen when the module is loaded, changed by `use_level` and `use_pool` alone.
const Level* level = dropkit::best_level();
dropkit::ParallelFor pool = nullptr;

// Below this many elements a call is over before another thread could have taken the lock.
constexpr std::int64_t kHoldLock = 1 << 13;

PyObject* fail(const char* const text) {
  PyErr_SetString(PyExc_ValueError, text);
  return nullptr;
}

std::uintptr_t address(PyObject* const number) { return static_cast<std::uintptr_t>(PyLong_AsUnsignedLongLong(number)); }

// False with a TypeError set unless `object` is a tuple.
bool is_tuple(PyObject* const object, const char* const what) {
  if (PyTuple_Check(object)) return true;
  PyErr_Format(PyExc_TypeError, "%s must be a tuple", what);
  return false;
}

// Reads element d of four tuples of equal length.
bool read_walk(PyObject* const* const args, Walk& walk) {
  for (int i = 0; i < 4; ++i) {
    if (!is_tuple(args[i], "each of sizes, dst_strides, src_strides and coin_steps")) return false;
  }
  const Py_ssize_t rank = PyTuple_Size(args[0]);
  if (rank > dropkit::kMaxDims) return false;
  for (int i = 1; i < 4; ++i) {
    if (PyTuple_Size(args[i]) != rank) return false;
  }
  for (Py_ssize_t d = 0; d < rank; ++d) {
    std::int64_t column[4];
    for (int i = 0; i < 4; ++i) {
      PyObject* const item = PyTuple_GetItem(args[i], d);
      if (item == nullptr) return false;
      column[i] = PyLong_AsLongLong(item);
    }
    walk.dims[d] = Dim{column[0], column[1], column[2], column[3]};
  }
  walk.rank = static_cast<int>(rank);
  return PyErr_Occurred() == nullptr;
}

// Reads (threshold, scale, shift, fill).
bool read_values(PyObject* const tuple, Call& call) {
  if (!is_tuple(tuple, "values") || PyTuple_Size(tuple) != 4) return false;
  call.threshold = PyLong_AsUnsignedLongLong(PyTuple_GetItem(tuple, 0));
  double numbers[3];
  for (Py_ssize_t i = 0; i < 3; ++i) numbers[i] = PyFloat_AsDouble(PyTuple_GetItem(tuple, i + 1));
  call.values = {numbers[0], numbers[1], numbers[2]};
  return PyErr_Occurred() == nullptr;
}

PyDoc_STRVAR(drop_doc,
             "drop(dst, src, dtype, key, values, base, n)\n"
             "drop(dst, src, dtype, key, values, base, n, add)\n"
             "drop(dst, src, dtype, key, values, base, sizes, dst_strides, src_strides, coin_steps)\n"
             "--\n\n"
             "Write src's elements to dst, kept ones as x * scale + shift, dropped ones as fill.\n\n"
             "dst and src are addresses, dtype an index into DTYPES, key 64 bits, values (threshold, scale, shift, fill) with\n"
             "the threshold in [0, 2**32]. With `n`, both are dense and the coins are base ... base + n - 1; so is what lies at\n"
             "`add`, which the result is added to, and the threshold is below 2**32 then. With four tuples,\n"
             "the element at some coordinates lies at sum(coordinate * stride) and uses coin\n"
             "base + sum(coordinate * coin_step).");

PyObject* drop(PyObject*, PyObject* const* const args, const Py_ssize_t n) {
  if (n != 7 && n != 8 && n != 10) return fail("drop() takes 7, 8 or 10 arguments");
  Walk walk;
  Call call;
  call.dst = reinterpret_cast<void*>(address(args[0]));
  call.src = reinterpret_cast<const void*>(address(args[1]));
  const long dtype = PyLong_AsLong(args[2]);
  call.key = PyLong_AsUnsignedLongLongMask(args[3]);
  if (!read_values(args[4], call) && PyErr_Occurred() == nullptr) return fail("drop() takes four values");
  walk.base = PyLong_AsUnsignedLongLongMask(args[5]);
  if (n == 8) call.add = reinterpret_cast<const void*>(address(args[7]));
  if (n < 10) {
    walk.dims[0] = Dim{PyLong_AsLongLong(args[6]), 1, 1, 1};
    walk.rank = 1;
  } else if (!read_walk(args + 6, walk) && PyErr_Occurred() == nullptr) {
    return fail("drop() takes four tuples of equal length, at most 64");
  }
  if (PyErr_Occurred() != nullptr) return nullptr;
  if (dtype < 0 || dtype >= dropkit::kDtypes) return fail("dtype is not an index into DTYPES");
  if (call.threshold > std::uint64_t{1} << 32) return fail("threshold is not in [0, 2**32]");
  if (call.add != nullptr && call.threshold >> 32 != 0) return fail("threshold is not below 2**32, and add is given");
  call.dtype = static_cast<dropkit::Dtype>(dtype);
  for (int d = 0; d < walk.rank; ++d) {
    if (walk.dims[d].size < 0) return fail("sizes must be at least 0");
  }
  const std::int64_t count = walk.count();
  if (count == 0) Py_RETURN_NONE;
  if (call.dst == nullptr || call.src == nullptr || (n == 8 && call.add == nullptr)) return fail("dst, src and add must not be null");
  bool done = false;
  if (count < kHoldLock) {
    done = dropkit::drop(call, walk, *level, pool);
  } else {
    Py_BEGIN_ALLOW_THREADS;
    done = dropkit::drop(call, walk, *level, pool);
    Py_END_ALLOW_THREADS;
  }
  if (!done) {
    PyErr_SetString(PyExc_RuntimeError, "the thread pool failed while dropout ran; the output is undefined");
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyDoc_STRVAR(philox_doc,
             "philox(key, low, high)\n--\n\n"
             "The four 32-bit words of Philox4x32-10 for a 64-bit key and the counter of 64-bit halves `low` and `high`.");

PyObject* philox(PyObject*, PyObject* const* const args, const Py_ssize_t n) {
  if (n != 3) return fail("philox() takes 3 arguments");
  std::uint64_t numbers[3];
  for (int i = 0; i < 3; ++i) numbers[i] = PyLong_AsUnsignedLongLongMask(args[i]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  const auto low = [](const std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const dropkit::Block counter{low(numbers[1]), low(numbers[1] >> 32), low(numbers[2]), low(numbers[2] >> 32)};
  const dropkit::Block words = dropkit::philox(counter, dropkit::Schedule(numbers[0], 0));
  return Py_BuildValue("(IIII)", words[0], words[1], words[2], words[3]);
}

PyDoc_STRVAR(levels_doc, "levels()\n--\n\nThe instruction sets of this build, best first: (name, runs on this machine).");

PyObject* levels(PyObject*, PyObject*) {
  PyObject* const all = PyTuple_New(static_cast<Py_ssize_t>(dropkit::levels.size()));
  if (all == nullptr) return nullptr;
  for (std::size_t i = 0; i < dropkit::levels.size(); ++i) {
    const Level& one = *dropkit::levels[i];
    PyObject* const row = Py_BuildValue("(sO)", one.name, one.runs_here() ? Py_True : Py_False);
    if (row == nullptr || PyTuple_SetItem(all, static_cast<Py_ssize_t>(i), row) < 0) {
      Py_DECREF(all);
      return nullptr;
    }
  }
  return all;
}

PyDoc_STRVAR(level_doc, "level()\n--\n\nName of the instruction set in use.");

PyObject* level_name(PyObject*, PyObject*) { return PyUnicode_FromString(level->name); }

PyDoc_STRVAR(use_level_doc, "use_level(name)\n--\n\nUse the instruction set of this name from now on.");

PyObject* use_level(PyObject*, PyObject* const name) {
  const char* const wanted = PyUnicode_AsUTF8AndSize(name, nullptr);
  if (wanted == nullptr) return nullptr;
  for (const Level* const one : dropkit::levels) {
    if (std::strcmp(one->name, wanted) == 0 && one->runs_here()) {
      level = one;
      Py_RETURN_NONE;
    }
  }
  return fail("no such level runs here");
}

PyDoc_STRVAR(use_pool_doc, "use_pool(address)\n--\n\nRun large calls through the `torch_parallel_for` at this address; 0: serially.");

PyObject* use_pool(PyObject*, PyObject* const number) {
  const std::uintptr_t at = address(number);
  if (PyErr_Occurred() != nullptr) return nullptr;
  pool = reinterpret_cast<dropkit::ParallelFor>(at);
  Py_RETURN_NONE;
}

// PyMethodDef holds one function type for all calling conventions; the detour by void(*)() is the sanctioned cast.
template <class Function>
PyCFunction method(const Function function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"drop", method(drop), METH_FASTCALL, drop_doc},
    {"philox", method(philox), METH_FASTCALL, philox_doc},
    {"levels", levels, METH_NOARGS, levels_doc},
    {"level", level_name, METH_NOARGS, level_doc},
    {"use_level", use_level, METH_O, use_level_doc},
    {"use_pool", use_pool, METH_O, use_pool_doc},
    {nullptr, nullptr, 0, nullptr},
};

int fill_module(PyObject* const module) {
  // The threads of the pool do not live on in a forked child, and an OpenMP runtime that waits for them never returns.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool = nullptr; });
  if (registered != 0) {
    PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
    return -1;
  }
  PyObject* const dtypes = Py_BuildValue("(ssss)", "float32", "float64", "bfloat16", "float16");
  if (dtypes == nullptr || PyModule_AddObject(module, "DTYPES", dtypes) < 0) {
    Py_XDECREF(dtypes);
    return -1;
  }
  return 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(fill_module)}, {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_cpu", "Dropout on CPU memory.", 0, methods, slots, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModuleDef_Init(&definition); }
