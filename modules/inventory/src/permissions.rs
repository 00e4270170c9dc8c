//! What may be done here, as types; `module.toml` says the same for people and for roles.

waangu_sdk::permissions! {
    /// See products.
    ProductRead = "inventory:product.read";
    /// Create and change products.
    ProductWrite = "inventory:product.write";
    /// See places.
    PlaceRead = "inventory:place.read";
    /// Create places.
    PlaceWrite = "inventory:place.write";
    /// See stock on hand and moves.
    StockRead = "inventory:stock.read";
    /// Move stock.
    StockMove = "inventory:stock.move";
    /// See the stock of a whole subtree.
    ConsolidatedRead = "inventory:consolidated.read";
}
