// The secretstream that this build does not use, for unit_other_secretstream.
#include K2_OTHER_SECRETSTREAM  // NOLINT(bugprone-suspicious-include): one of two sources
