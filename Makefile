# Names for the scripts; everything is in them.
.PHONY: build test sweep bench

build:
	./scripts/setup.sh build
	./scripts/build.sh

test sweep bench:
	./scripts/$@.sh
