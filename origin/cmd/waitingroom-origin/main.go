// Command waitingroom-origin runs an origin of the waiting room against Redis or Valkey, and makes
// the keys that an installation needs.
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

	"waitingroom/origin"
	"waitingroom/origin/store/redis"
)

const usage = `usage:
  waitingroom-origin -config FILE                 serve; SIGHUP reads keys, tenants and certificate again
  waitingroom-origin -config FILE -check-config   say what is wrong with the config and its keys, and exit
  waitingroom-origin keys -dir DIR -tenant ID     write the key files of a first installation, or of one more tenant
  waitingroom-origin api-key -kind KIND           make an API key, secret or publishable
  waitingroom-origin operator-token -key FILE -tenant ID -role ROLE -audience URL [-hours N]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "waitingroom-origin:", err)
		os.Exit(1)
	}
}

// run is the program without its process.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	commands := map[string]func([]string, io.Writer) error{
		"keys": makeKeys, "api-key": makeAPIKey, "operator-token": makeOperatorToken,
	}
	if len(args) > 0 && commands[args[0]] != nil {
		return commands[args[0]](args[1:], out)
	}
	flags := flag.NewFlagSet("waitingroom-origin", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Usage = func() { fmt.Fprint(errs, usage) }
	path := flags.String("config", "", "config file")
	check := flags.Bool("check-config", false, "check the config and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		flags.Usage()
		return fmt.Errorf("unknown command %q", flags.Arg(0))
	}
	if *path == "" {
		flags.Usage()
		return errors.New("-config FILE is required")
	}
	config, err := origin.LoadConfig(*path)
	if err != nil {
		return err
	}
	connection, err := redisConfig(config.Redis)
	if err := errors.Join(err, config.CheckSecrets()); err != nil {
		return err
	}
	if *check {
		fmt.Fprintln(out, "the config is good")
		return nil
	}
	logger := slog.New(slog.NewTextHandler(errs, nil))
	redis.LogTo(logger)
	store, err := redis.Open(connection)
	if err != nil {
		return err
	}
	defer store.Close()
	server := &origin.Server{Config: config, Store: store, Logger: logger}
	if err := server.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go reload(ctx, hangups, server, *path)
	return server.Run(ctx)
}

// reload reads keys, tenants' API keys and the certificate again at each hangup.
func reload(ctx context.Context, hangups <-chan os.Signal, server *origin.Server, path string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		config, err := origin.LoadConfig(path)
		if err == nil {
			err = server.Reload(config)
		}
		if err != nil {
			server.Logger.Error("reload failed, everything stays as it was", "error", err)
		} else {
			server.Logger.Info("reloaded")
		}
	}
}
