// The only pybind11 in the project: one registration function a topic. The module lives in the same shared object as
// the Rust module, which exports its initialiser (rust/py/src/lib.rs).
#include "bind/module.h"

#include <pybind11/pybind11.h>

namespace highrise::bind {

void register_all(pybind11::module_& module) {
  module.doc() = "C++ kernels of Highrise: plain pointers inside, checked arrays outside.";
  register_decoder(module);
}

}  // namespace highrise::bind

PYBIND11_MODULE(_csrc_module, module) { highrise::bind::register_all(module); }
