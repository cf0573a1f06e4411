// Command waitingroom-edge runs an edge: what fans and shops talk to. It holds no state of its
// own, so any number of them can stand behind one address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"waitingroom/edge"
	"waitingroom/origin/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "waitingroom-edge:", err)
		os.Exit(1)
	}
}

// run composes the program. The address is printed because port 0 in the file takes a free one.
func run(ctx context.Context, args []string, out, logs io.Writer) error {
	flags := flag.NewFlagSet("waitingroom-edge", flag.ContinueOnError)
	flags.SetOutput(logs)
	path := flags.String("config", "edge.yaml", "configuration `file`")
	checkOnly := flags.Bool("check-config", false, "check the configuration and its secret, and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	config, err := edge.LoadConfig(*path)
	if err != nil {
		return err
	}
	secret, err := config.ClusterSecret.Load()
	if err != nil {
		return fmt.Errorf("load clusterSecret: %w", err)
	}
	origin := &wire.Client{Origins: config.Origins, Secret: string(secret)}
	if err := origin.Check(); err != nil {
		return err
	}
	if *checkOnly {
		fmt.Fprintln(out, "config is good")
		return nil
	}
	defer origin.CloseIdle()
	server := &edge.Server{
		Config: config,
		Origin: origin,
		Logger: slog.New(slog.NewTextHandler(logs, nil)),
	}
	if err := server.Listen(); err != nil {
		return err
	}
	fmt.Fprintln(out, "edge listens on", server.Addr())
	if admin := server.AdminAddr(); admin != nil {
		fmt.Fprintln(out, "admin listens on", admin)
	}
	return server.Run(ctx)
}
