#define COORD_IMPLEMENTATION
#include "coord.hpp"
