"""Print every benchmark's table, error and time side by side: what ``make bench`` runs."""

import accuracy
import defaults
import engine
import kde

if __name__ == "__main__":
    for benchmark in (engine, kde, accuracy, defaults):
        benchmark.run()
        print(flush=True)
