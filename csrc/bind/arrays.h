// Checks of numpy arrays at the border: dtype, number of axes, contiguity. A failed check is one sentence with the
// values.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

namespace highrise::bind {

inline std::string shape_of(const pybind11::array& array) {
  std::string text = "(";
  for (pybind11::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(array.shape(axis));
  }
  return text + ")";
}

// A C-contiguous array of T with `axes` axes, as pointer and sizes.
template <class T>
const T* checked(const pybind11::array& array, const char* name, pybind11::ssize_t axes) {
  if (!pybind11::dtype::of<T>().is(array.dtype()) && !array.dtype().equal(pybind11::dtype::of<T>())) {
    throw pybind11::type_error(std::string(name) + " holds " + std::string(pybind11::str(array.dtype())) +
                               "; it must be " + std::string(pybind11::str(pybind11::dtype::of<T>())));
  }
  if (array.ndim() != axes) {
    throw pybind11::value_error(std::string(name) + " has shape " + shape_of(array) + "; it must have " +
                                std::to_string(axes) + (axes == 1 ? " axis" : " axes"));
  }
  if (!(array.flags() & pybind11::array::c_style)) {
    throw pybind11::value_error(std::string(name) + " of shape " + shape_of(array) +
                                " is not contiguous; pass numpy.ascontiguousarray of it");
  }
  return static_cast<const T*>(array.data());
}

}  // namespace highrise::bind
