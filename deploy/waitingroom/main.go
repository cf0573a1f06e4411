// Command waitingroom is the whole waiting room in one process: an edge, an origin, the embedded
// store, a demo shop behind the Gate, and as many simulated fans as wanted. It is for trying the
// room out and for tests of what is built on it: everything is kept in memory, and all keys are
// made at the start.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "waitingroom:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := DefaultOptions()
	flags := flag.NewFlagSet("waitingroom", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.Edge, "edge", o.Edge, "`address` of the edge: waiting page and API for fans; port 0 takes a free one")
	flags.StringVar(&o.Origin, "origin", o.Origin, "`address` of the origin: API for operators and shops")
	flags.StringVar(&o.Shop, "shop", o.Shop, "`address` of the demo shop")
	flags.StringVar(&o.OtherShop, "other-shop", o.OtherShop, "`address` of the second tenant's shop")
	flags.StringVar(&o.Polling, "polling", o.Polling, "how the waiting page polls: direct, or cached, as behind a cache")
	flags.IntVar(&o.Crowd, "crowd", o.Crowd, "`number` of simulated fans")
	flags.DurationVar(&o.Shopping, "shopping", o.Shopping, "mean time that a simulated fan spends in the shop")
	flags.DurationVar(&o.Away, "away", o.Away, "mean time after which a simulated fan comes again")
	flags.IntVar(&o.Capacity, "capacity", o.Capacity, "how many fans the shop holds at once; 0 is an eighth of the crowd, at least 3")
	flags.IntVar(&o.MaxPerMinute, "max-per-minute", o.MaxPerMinute, "how many fans are let in within a minute; 0 sets no limit")
	flags.DurationVar(&o.PurchaseWindow, "purchase-window", o.PurchaseWindow, "how long a fan may stay in the shop, in whole seconds")
	flags.DurationVar(&o.Hold, "hold", o.Hold, "how long a place outlives the last sign of life, in whole seconds")
	flags.DurationVar(&o.Claim, "claim", o.Claim, "how long a place in the shop is kept for the next fan, in whole seconds")
	flags.IntVar(&o.MaxMissedOffers, "max-missed-offers", o.MaxMissedOffers, "how many missed offers end a ticket")
	flags.DurationVar(&o.OpensIn, "opens-in", o.OpensIn, "after which time the sale opens; until then fans gather in line")
	asJSON := flags.Bool("json", false, "print one line of JSON with addresses, keys and tokens instead of the welcome")
	verbose := flags.Bool("verbose", false, "log what edge and origin say to standard error")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelInfo
	}
	demo, err := NewDemo(o, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return err
	}
	fmt.Fprintln(stderr, "waitingroom: all keys were made just now, and everything is in memory: for trying out, not for a sale")
	return demo.Run(ctx, func(ctx context.Context, a Access) error {
		if *asJSON {
			return json.NewEncoder(stdout).Encode(a)
		}
		welcome(stdout, a, o)
		return nil
	}, func(line string) {
		if !*asJSON {
			fmt.Fprintln(stdout, time.Now().Format(time.TimeOnly), line)
		}
	})
}

func welcome(w io.Writer, a Access, o Options) {
	opens := "is open"
	if o.OpensIn > 0 {
		opens = "opens at " + time.Now().Add(o.OpensIn).Format(time.TimeOnly)
	}
	fmt.Fprintf(w, `
The waiting room %[8]s, with a crowd of %[1]d.

  Open the shop:    %[2]s/
                    You are sent to the waiting page, see the line move, are let in and can buy.
                    Open it again in a private window to be somebody else, or sign in at
                    %[2]s/sign-in in both to be the same fan on two devices.
  The queue:        %[3]s/queues/%[4]s/state
  As its operator:  curl -H "Authorization: Bearer %[5]s" %[6]s/queues/%[4]s/stats
  Another tenant:   %[7]s/  (no crowd: nobody waits there)

Ctrl-C stops everything.

`, o.Crowd, a.Shop, a.Edge, a.Queue, a.OperatorToken, a.Origin, a.Other.Shop, opens)
}
