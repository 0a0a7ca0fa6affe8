// Declares one registration function a topic; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "serve/kernels.h"

namespace highrise::bind {

// The kernels of a name, or a ValueError that lists what this CPU has.
const serve::Kernels& kernels_of(const std::string& isa);

// "float32", "float16" or "int8" as what it says of pages, or a ValueError.
serve::CacheType cache_type_of(const std::string& kv);

void register_decoder(pybind11::module_& module);
void register_encoder(pybind11::module_& module);
void register_kernels(pybind11::module_& module);
void register_all(pybind11::module_& module);

}  // namespace highrise::bind
