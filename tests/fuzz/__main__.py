"""`python -m tests.fuzz`."""

from tests.fuzz.fuzzer import main

raise SystemExit(main())
