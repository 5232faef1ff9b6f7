"""What is served: routes, negotiation, who is let in, TLS, connections and their limits."""
