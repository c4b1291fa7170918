// A directory for what an example writes. It is removed when the program and all its children have
// ended, in whatever way they do.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include <sys/wait.h>
#include <unistd.h>

class ScratchDirectory {
public:
    ScratchDirectory() {
        const char* parent = std::getenv("TMPDIR");
        if (parent == nullptr || *parent == 0) parent = "/tmp";
        std::string path = std::string(parent) + "/coord.XXXXXX";
        if (::mkdtemp(&path[0]) == nullptr) return;
        path_ = path;
        appoint_janitor();
    }
    // REQUIRES that the program's children have ended.
    ~ScratchDirectory() {
        if (alive_ >= 0) ::close(alive_);
        if (janitor_ > 0) ::waitpid(janitor_, nullptr, 0);
    }
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;
    const std::string& path() const { return path_; }  // "" = there is none

private:
    // The janitor is a process that waits for the end of a pipe. We have the other side of it, and
    // so have those that we fork: it ends with the last of us, be it by kill -9.
    void appoint_janitor() {
        int ends[2] = {-1, -1};
        if (::pipe(ends) != 0) return;
        janitor_ = ::fork();
        if (janitor_ == 0) {
            ::setsid();  // what ends us from the keyboard is not for it
            for (int fd : {0, 1, 2, ends[1]}) ::close(fd);
            char byte = 0;
            while (::read(ends[0], &byte, 1) > 0) {}
            std::error_code error;
            std::filesystem::remove_all(path_, error);
            ::_exit(0);
        }
        ::close(ends[0]);
        alive_ = ends[1];
    }

    std::string path_;
    pid_t janitor_ = -1;
    int alive_ = -1;
};
