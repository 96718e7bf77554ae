// Folders that overlap: by other spellings, through symbolic links, and if one of them does not exist yet.
#include "files/places.hpp"

#include "files_harness.hpp"

namespace kitsune2::files {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

TEST(Places, InsideByAnySpelling) {
  const TempDir dir;
  fs::create_directories(dir.path() / "data/below/deep");
  fs::create_directories(dir.path() / "other");
  fs::create_directory_symlink(dir.path() / "data/below", dir.path() / "link");
  fs::create_directory_symlink(dir.path(), dir.path() / "other/up");
  const std::string data = dir.str("data");
  for (const std::string inside :
       {"data", "data/", "data/below", "data/./below/../below/deep", "link", "link/deep", "other/up/data",
        "data/not there", "link/not/there", "other/../data", "other/up/data/new/"}) {
    EXPECT_TRUE(is_inside(dir.str(inside), data)) << inside;
    EXPECT_TRUE(overlap(data, dir.str(inside))) << inside;
  }
  for (const std::string apart : {"other", "dat", "data2", "not there", "other/new", "link/../../other"}) {
    EXPECT_FALSE(overlap(dir.str(apart), data)) << apart;
  }
  EXPECT_FALSE(is_inside(dir.str(), data));
  EXPECT_TRUE(overlap(dir.str(), data)) << "above";
  EXPECT_TRUE(overlap(dir.str("other/up"), data)) << "above, through a link";
}

TEST(Places, NeitherIsThereYet) {
  const TempDir dir;
  EXPECT_TRUE(overlap(dir.str("new"), dir.str("new/")));
  EXPECT_TRUE(overlap(dir.str("new"), dir.str("new/data")));
  EXPECT_TRUE(overlap(dir.str("a/../new/out"), dir.str("new")));
  EXPECT_FALSE(overlap(dir.str("new"), dir.str("new2")));
}

}  // namespace
}  // namespace kitsune2::files
