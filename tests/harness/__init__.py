"""What tests are made of: real servers, fakes that speak HTTP over a socket, readers of rules, dashboards and docs."""
