"""What the tests share: small data, toys with known densities, and files made for them."""
