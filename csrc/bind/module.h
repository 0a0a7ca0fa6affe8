// Declares one registration function a topic; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace highrise::bind {

void register_decoder(pybind11::module_& module);
void register_all(pybind11::module_& module);

}  // namespace highrise::bind
