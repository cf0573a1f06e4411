package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"waitingroom/origin"
	"waitingroom/origin/store/redis"
	"waitingroom/tokens"
)

// redisConfig reads what the store needs from the files that the config names.
func redisConfig(c origin.RedisConfig) (redis.Config, error) {
	out := redis.Config{
		Addresses: c.Addresses, MasterName: c.MasterName, Cluster: c.Cluster,
		Username: c.Username, SentinelUsername: c.SentinelUsername,
		Replicas: c.Replicas, ReplicaTimeout: c.ReplicaTimeout,
	}
	var problems []error
	if len(c.Addresses) == 0 {
		problems = append(problems, errors.New("check config: redis.addresses: at least one is required"))
	}
	read := func(name string, source tokens.Source) string {
		if source == (tokens.Source{}) {
			return ""
		}
		secret, err := source.Load()
		if err != nil {
			problems = append(problems, fmt.Errorf("read %s: %w", name, err))
		}
		return string(secret)
	}
	out.Password = read("redis.password", c.Password)
	out.SentinelPassword = read("redis.sentinelPassword", c.SentinelPassword)
	if c.TLS {
		out.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		roots := x509.NewCertPool()
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("read redis.caFile: %w", err))
		case !roots.AppendCertsFromPEM(pem):
			problems = append(problems, errors.New("read redis.caFile: it holds no certificate"))
		case out.TLS != nil:
			out.TLS.RootCAs = roots
		}
	}
	return out, errors.Join(problems...)
}
