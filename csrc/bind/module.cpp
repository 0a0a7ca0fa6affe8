// The only pybind11 in the project: one registration function a topic. The module lives in the same shared object as
// the Rust module, which exports its initialiser (rust/py/src/lib.rs).
#include "bind/module.h"

#include <pybind11/pybind11.h>

namespace highrise::bind {

const serve::Kernels& kernels_of(const std::string& isa) {
  const serve::Kernels* kernels = serve::find_kernels(isa.c_str());
  if (kernels) return *kernels;
  std::string names;
  for (const char* const* list : {serve::available_kernels(), serve::available_orders()}) {
    for (; *list; ++list) names += (names.empty() ? "" : ", ") + std::string(*list);
  }
  throw pybind11::value_error("isa \"" + isa + "\" is not to be had on this CPU; choose auto or one of " + names);
}

void register_all(pybind11::module_& module) {
  module.doc() = "C++ kernels of Highrise: plain pointers inside, checked arrays outside.";
  register_decoder(module);
  register_encoder(module);
  register_kernels(module);
}

}  // namespace highrise::bind

// Whatever two threads may share locks for itself (serve/decoder_state.h, serve/encoder.cpp), with a GIL or without.
PYBIND11_MODULE(_csrc_module, module, pybind11::mod_gil_not_used()) { highrise::bind::register_all(module); }
