// What the tests of the shipped stores share.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "kitsune2/op_store.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/store_world.hpp"
