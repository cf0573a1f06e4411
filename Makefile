# Everything that is done with this tree. `make help` lists it.

GO ?= go

.DEFAULT_GOAL := help
.PHONY: help run build web test lint fmt bench live microbench fire soak siege fuzz chaos agree cached sim pictures needs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start edge, origin, a demo shop and a crowd of fans in one process; needs nothing but Go
	$(GO) run ./deploy/waitingroom -crowd 200

build: ## build the three programs into bin/
	$(GO) build -o bin/ ./deploy/waitingroom ./origin/cmd/waitingroom-origin ./edge/cmd/waitingroom-edge

test: needs ## run all tests under the race detector, with a real Redis, Chromium and node
	$(GO) test -race -timeout 9m ./...

fire: needs ## 100,000 fans rush one queue on two edges and two origins; check their places. SEED=n repeats their choices
	$(GO) test -race -count 1 -v -timeout 60m -run '^TestPlacesUnderFire$$' ./deploy -fire.fans 100000 -fire.seed $(or $(SEED),0)

soak: needs ## 400,000 fans come and go; watch memory and goroutines. SEED=n repeats what they did
	$(GO) test -race -count 1 -v -timeout 60m -run '^TestSoak$$' ./deploy -soak.fans 400000 -soak.seed $(or $(SEED),0)

siege: needs ## slow clients attack an edge, at length; compare what the others notice
	$(GO) test -tags siege -race -count 1 -v -timeout 60m -run '^TestSlowClients' ./deploy -siege.pairs 11 -siege.window 2s

chaos: needs ## forty faults of a Redis Cluster at random under a crowd. SEED=n repeats which ones
	$(GO) test -race -count 1 -v -timeout 60m -run '^TestFaultsAtRandom$$' ./origin/store/redis -chaos.faults 40 -chaos.seed $(or $(SEED),0)

agree: needs ## 10,000 random sequences of calls on Redis and on the embedded store, which must agree. SEED=n repeats them
	$(GO) test -count 1 -v -timeout 60m -run '^TestAgreesWithMemory$$' ./origin/store/redis -agree.sequences 10000 -rapid.shrinktime 3m -agree.seed $(or $(SEED),0)

cached: needs ## 10,000 fans poll through nginx for four turns of a minute; what reaches the edges, kept in bench/results
	$(GO) test -count 1 -v -timeout 60m -run '^TestPollingThroughACache$$' ./deploy -cached.fans 10000 -cached.seconds 240 -cached.hold 1800 -cached.results $(CURDIR)/bench/results

fuzz: ## fuzz all parsers for ten million executions; what they find interesting is kept in testdata/fuzz
	@GO="$(GO)" .ci/fuzz

web: ## bundle the page's scripts and style from web/src into web/assets, which is embedded
	$(GO) generate ./web

pictures: needs ## keep a picture of every view of the page, in two widths and both colour schemes, in bin/pictures
	@mkdir -p bin/pictures
	$(GO) test -count 1 -run '^TestEveryViewFitsItsScreen$$' ./deploy/waitingroom -artifacts -outputdir $(CURDIR)/bin/pictures

needs: ## install what the tests need besides Go, or say what is missing
	@.ci/needs

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "run make fmt: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags siege ./deploy
	$(GO) tool staticcheck ./...

fmt: ## format the Go code
	gofmt -w $$(git ls-files '*.go')

bench: ## measure the whole system against its budgets: prints the table and keeps it in bench/results
	$(GO) run ./bench/load -results bench/results

live: needs ## live connections alone: 100,000 held and told, bad readers, an edge killed; results in bench/results
	$(GO) run ./bench/load -scenario connections,live,slow-readers,edge-death -results bench/results

sim: ## simulate 20 sales with a million fans each, and calm ones for the estimate; results in bench/results. SEED=n begins there
	$(GO) run ./bench/sim -fans 1000000 -runs 20 -calm-runs 6 -seed $(or $(SEED),1) -results bench/results

microbench: ## run the micro-benchmarks that stand beside the code
	$(GO) test -run '^$$' -bench . -benchmem ./...
