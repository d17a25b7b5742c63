// dropkit.kernels._cpu: the kernel for Python, by the limited API only. It takes addresses and sizes, and no tensors.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <cstring>

#include "drop.h"
#include "isa.h"
#include "platform.h"

namespace {

using dropkit::Call;
using dropkit::Dim;
using dropkit::Isa;
using dropkit::SliceKeys;
using dropkit::TensorIter;

const Isa* best_isa() {
  for (const Isa* const candidate : dropkit::isas) {
    if (candidate->runs_here()) return candidate;
  }
  return &dropkit::scalar_isa;
}

// Chosen when the module is loaded; only `use_level` and `use_pool` change them.
const Isa* isa = best_isa();
dropkit::ParallelFor pool = nullptr;

// Below this many elements a call ends before another thread could have taken the interpreter lock.
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

// Reads (keys, first_blocks, strides) for a tensor of `rank` dimensions.
bool read_slices(PyObject* const tuple, const int rank, SliceKeys& slices) {
  if (!is_tuple(tuple, "slices") || PyTuple_Size(tuple) != 3) return false;
  slices.keys = reinterpret_cast<const std::uint64_t*>(address(PyTuple_GetItem(tuple, 0)));
  slices.first_blocks = reinterpret_cast<const std::uint64_t*>(address(PyTuple_GetItem(tuple, 1)));
  PyObject* const strides = PyTuple_GetItem(tuple, 2);
  if (!is_tuple(strides, "the strides of the keys") || PyTuple_Size(strides) > rank) return false;
  slices.rank = static_cast<int>(PyTuple_Size(strides));
  for (int d = 0; d < slices.rank; ++d) slices.strides[d] = PyLong_AsLongLong(PyTuple_GetItem(strides, d));
  return PyErr_Occurred() == nullptr;
}

// Reads sizes, dst_strides and src_strides at `args`, and the mask's strides: tuples of equal length.
bool read_dims(PyObject* const* const args, PyObject* const mask_strides, TensorIter& iter) {
  PyObject* const tuples[4] = {args[0], args[1], args[2], mask_strides};
  for (PyObject* const tuple : tuples) {
    if (!is_tuple(tuple, "each of sizes, dst_strides, src_strides and the mask's strides")) return false;
  }
  const Py_ssize_t rank = PyTuple_Size(tuples[0]);
  if (rank > dropkit::kMaxDims) return false;
  for (PyObject* const tuple : tuples) {
    if (PyTuple_Size(tuple) != rank) return false;
  }
  for (Py_ssize_t d = 0; d < rank; ++d) {
    std::int64_t column[4];
    for (int i = 0; i < 4; ++i) column[i] = PyLong_AsLongLong(PyTuple_GetItem(tuples[i], d));
    iter.dims[d] = Dim{column[0], column[1], column[2], column[3]};
  }
  iter.rank = static_cast<int>(rank);
  return PyErr_Occurred() == nullptr;
}

// Reads (threshold, scale, shift, fill), or (distribution, factor, term).
bool read_params(PyObject* const tuple, Call& call) {
  if (!is_tuple(tuple, "params")) return false;
  if (PyTuple_Size(tuple) == 3) {
    const long code = PyLong_AsLong(PyTuple_GetItem(tuple, 0));
    const double factor = PyFloat_AsDouble(PyTuple_GetItem(tuple, 1)), term = PyFloat_AsDouble(PyTuple_GetItem(tuple, 2));
    call.is_noise = true;
    call.threshold = 0;
    call.affine = {};
    call.noise = {code == 0 ? dropkit::Distribution::normal : dropkit::Distribution::uniform, factor, term};
    return PyErr_Occurred() == nullptr && (code == 0 || code == 1);
  }
  if (PyTuple_Size(tuple) != 4) return false;
  call.threshold = PyLong_AsUnsignedLongLong(PyTuple_GetItem(tuple, 0));
  double numbers[3];
  for (Py_ssize_t i = 0; i < 3; ++i) numbers[i] = PyFloat_AsDouble(PyTuple_GetItem(tuple, i + 1));
  call.affine = {numbers[0], numbers[1], numbers[2]};
  return PyErr_Occurred() == nullptr;
}

// Reads a key: 64 bits, or a tuple of those and the first block.
bool read_key(PyObject* const key, Call& call) {
  const bool is_pair = PyTuple_Check(key) != 0;
  if (is_pair && PyTuple_Size(key) != 2) return false;
  call.key = PyLong_AsUnsignedLongLongMask(is_pair ? PyTuple_GetItem(key, 0) : key);
  if (is_pair) call.first_block = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(key, 1));
  return PyErr_Occurred() == nullptr;
}

PyDoc_STRVAR(drop_doc,
             "drop(dst, src, dtype, mask, n)\n"
             "drop(dst, src, dtype, mask, n, add)\n"
             "drop(dst, src, dtype, mask, sizes, dst_strides, src_strides)\n"
             "drop(dst, src, dtype, mask, sizes, dst_strides, src_strides, slices)\n"
             "--\n\n"
             "Write src's elements to dst, kept ones as x * scale + shift, dropped ones as fill.\n\n"
             "dst and src are addresses, dtype an index into DTYPES. mask is a tuple (key, params, strides, offset): key has 64\n"
             "bits, or is a tuple of those and the first block, that of mask index 0; params are (threshold, scale, shift, fill)\n"
             "with the threshold in [0, 2**32], or (distribution, factor, term) for noise, where no `add` is given. With `n`, both are dense and the mask indices are offset ... offset + n - 1, and\n"
             "strides are not read. `add` is the address of dense elements that are added to the result; the threshold is below\n"
             "2**32 then. With three tuples, the element at some coordinates lies at sum(coordinate * stride) and has mask index\n"
             "offset + sum(coordinate * strides of the mask).\n\n"
             "`slices` is (keys, first_blocks, strides): the addresses of 64-bit numbers, and a tuple of a stride for each of the\n"
             "first dimensions. A slice at some coordinates in these has the key and the first block at sum(coordinate * stride).\n"
             "`first_blocks` may be 0 where all are 0; the mask's key is not read.");

PyObject* drop(PyObject*, PyObject* const* const args, const Py_ssize_t n) {
  if (n < 5 || n > 8) return fail("drop() takes 5 to 8 arguments");
  PyObject* const mask = args[3];
  if (!is_tuple(mask, "mask")) return nullptr;
  if (PyTuple_Size(mask) != 4) return fail("mask must be (key, params, strides, offset)");
  TensorIter iter;
  Call call;
  call.dst = reinterpret_cast<void*>(address(args[0]));
  call.src = reinterpret_cast<const void*>(address(args[1]));
  const long dtype = PyLong_AsLong(args[2]);
  if (n < 8 && !read_key(PyTuple_GetItem(mask, 0), call)) {
    return PyErr_Occurred() == nullptr ? fail("the key must be one number or two") : nullptr;
  }
  if (!read_params(PyTuple_GetItem(mask, 1), call) && PyErr_Occurred() == nullptr) return fail("params must be four numbers, or three");
  iter.mask_offset = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(mask, 3));
  if (n == 6) call.add = reinterpret_cast<const void*>(address(args[5]));
  if (n < 7) {
    iter.dims[0] = Dim{PyLong_AsLongLong(args[4]), 1, 1, 1};
    iter.rank = 1;
  } else if (!read_dims(args + 4, PyTuple_GetItem(mask, 2), iter) && PyErr_Occurred() == nullptr) {
    return fail("sizes and strides must be four tuples of equal length, at most 64");
  }
  SliceKeys slices;
  if (n == 8) {
    if (!read_slices(args[7], iter.rank, slices) && PyErr_Occurred() == nullptr) {
      return fail("slices must be (keys, first_blocks, strides) for some of the first dimensions");
    }
    call.slices = &slices;
  }
  if (PyErr_Occurred() != nullptr) return nullptr;
  if (dtype < 0 || dtype >= dropkit::kDtypes) return fail("dtype is not an index into DTYPES");
  if (call.threshold > std::uint64_t{1} << 32) return fail("threshold is not in [0, 2**32]");
  if (call.add != nullptr && call.is_noise) return fail("params are those of noise, and add is given");
  if (call.add != nullptr && call.threshold >> 32 != 0) return fail("threshold is not below 2**32, and add is given");
  call.dtype = static_cast<dropkit::Dtype>(dtype);
  for (int d = 0; d < iter.rank; ++d) {
    if (iter.dims[d].size < 0) return fail("sizes must be at least 0");
  }
  const std::int64_t count = iter.count();
  if (count == 0) Py_RETURN_NONE;
  if (call.dst == nullptr || call.src == nullptr || (n == 6 && call.add == nullptr) || (n == 8 && slices.keys == nullptr)) {
    return fail("dst, src, add and keys must not be null");
  }
  bool done = false;
  if (count < kHoldLock) {
    done = dropkit::drop(call, iter, *isa, pool);
  } else {
    Py_BEGIN_ALLOW_THREADS;
    done = dropkit::drop(call, iter, *isa, pool);
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
  const dropkit::Block words = dropkit::philox(counter, dropkit::Schedule(numbers[0], 0, 0));
  return Py_BuildValue("(IIII)", words[0], words[1], words[2], words[3]);
}

PyDoc_STRVAR(levels_doc, "levels()\n--\n\nThe instruction sets of this build, best first: (name, runs on this machine).");

PyObject* levels(PyObject*, PyObject*) {
  PyObject* const all = PyTuple_New(static_cast<Py_ssize_t>(dropkit::isas.size()));
  if (all == nullptr) return nullptr;
  for (std::size_t i = 0; i < dropkit::isas.size(); ++i) {
    const Isa& each = *dropkit::isas[i];
    PyObject* const row = Py_BuildValue("(sO)", each.name, each.runs_here() ? Py_True : Py_False);
    if (row == nullptr || PyTuple_SetItem(all, static_cast<Py_ssize_t>(i), row) < 0) {
      Py_DECREF(all);
      return nullptr;
    }
  }
  return all;
}

PyDoc_STRVAR(level_doc, "level()\n--\n\nName of the instruction set in use.");

PyObject* level_name(PyObject*, PyObject*) { return PyUnicode_FromString(isa->name); }

PyDoc_STRVAR(use_level_doc, "use_level(name)\n--\n\nUse the instruction set of this name from now on.");

PyObject* use_level(PyObject*, PyObject* const name) {
  const char* const wanted = PyUnicode_AsUTF8AndSize(name, nullptr);
  if (wanted == nullptr) return nullptr;
  for (const Isa* const each : dropkit::isas) {
    if (std::strcmp(each->name, wanted) == 0 && each->runs_here()) {
      isa = each;
      Py_RETURN_NONE;
    }
  }
  return fail("no such instruction set runs here");
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
  static const bool registered = dropkit::run_in_forked_children([] { pool = nullptr; });
  if (!registered) {
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
