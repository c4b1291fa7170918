// Makes a failing run of a simulation small: a run that anybody can read has few faults, few
// clients and few calls. What a run is made of has to be numbers: dials, each with the plainest
// value that it can have; and lists of what is done, by number, of which any may be left out.
// `fails` makes a run of what it is given, and says whether that fails in the same way.
//
//     support::Shrinker shrinker(500);  // runs at most
//     std::vector<support::Dial> dials = {{"replicas", 5, 1}, {"loss", 40, 0}, {"clients", 9, 1}};
//     shrinker.turn_down(dials, [&] { return fails(dials, calls); });
//     shrinker.leave_out(calls, [&] { return fails(dials, calls); });
//
// Both leave the smallest that was found to fail in their first argument. They are greedy: of two
// things that only together can go, neither does, unless they go in one group of a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace support {

struct Dial {
    std::string name;
    std::uint64_t value = 0;
    std::uint64_t plainest = 0;
};

class Shrinker {
public:
    explicit Shrinker(std::size_t runs_max) : runs_max_(runs_max) {}
    std::size_t runs() const { return runs_; }
    bool is_spent() const { return runs_ >= runs_max_; }

    // Leaves out halves, then quarters, at last single ones, until none can go.
    template <class Fails>
    void leave_out(std::vector<std::uint64_t>& kept, const Fails& fails) {
        std::size_t size = kept.size();
        while (size > 0 && !is_spent()) {
            if (!leave_out_groups(kept, size, fails) || size > kept.size()) {
                size = size == 1 ? 0 : (size + 1) / 2;
            }
        }
    }

    // First as many dials as can be at their plainest are; then the others come near that.
    template <class Fails>
    void turn_down(std::vector<Dial>& dials, const Fails& fails) {
        std::vector<std::uint64_t> turned;
        const std::vector<Dial> given = dials;
        for (std::size_t i = 0; i < dials.size(); i++) {
            if (dials[i].value != dials[i].plainest) turned.push_back(i);
        }
        const auto set = [&dials, &given, &turned] {
            for (Dial& dial : dials) dial.value = dial.plainest;
            for (const std::uint64_t i : turned) {
                dials[static_cast<std::size_t>(i)].value = given[static_cast<std::size_t>(i)].value;
            }
        };
        leave_out(turned, [&set, &fails] {
            set();
            return fails();
        });
        set();
        for (const std::uint64_t i : turned) bring_near(dials[static_cast<std::size_t>(i)], fails);
    }

private:
    // RETURNS whether one could go.
    template <class Fails>
    bool leave_out_groups(std::vector<std::uint64_t>& kept, std::size_t size, const Fails& fails) {
        bool any = false;
        for (std::size_t at = 0; at < kept.size() && !is_spent();) {
            const std::vector<std::uint64_t> before = kept;
            const auto begin = kept.begin() + static_cast<std::ptrdiff_t>(at);
            const std::size_t left = kept.size() - at;
            kept.erase(begin, begin + static_cast<std::ptrdiff_t>(left < size ? left : size));
            runs_ += 1;
            if (fails()) {
                any = true;
            } else {
                kept = before, at += size;
            }
        }
        return any;
    }

    // By halves, between the plainest, with which it does not fail, and what fails.
    template <class Fails>
    void bring_near(Dial& dial, const Fails& fails) {
        std::uint64_t well = dial.plainest;
        for (int i = 0; i < 12 && !is_spent(); i++) {
            const std::uint64_t failing = dial.value;
            const std::uint64_t apart = failing > well ? failing - well : well - failing;
            if (apart <= 1) return;
            const std::uint64_t half = failing > well ? well + apart / 2 : well - apart / 2;
            dial.value = half;
            runs_ += 1;
            if (fails()) continue;
            dial.value = failing, well = half;
        }
    }

    const std::size_t runs_max_;
    std::size_t runs_ = 0;
};

}  // namespace support
