//! The errors that only this module answers.

use waangu_sdk::ErrorDef;

/// All of the below, in order.
pub(crate) static ERRORS: [&ErrorDef; 11] = [
    &PRODUCT_NOT_FOUND,
    &PRODUCT_UNKNOWN,
    &PRODUCT_IN_USE,
    &SKU_TAKEN,
    &PLACE_NOT_FOUND,
    &PLACE_UNKNOWN,
    &PLACE_CODE_TAKEN,
    &MOVE_NOT_FOUND,
    &INSUFFICIENT_STOCK,
    &EXCESSIVE_STOCK,
    &BATCH_OFF,
];

/// There is no such product.
pub(crate) static PRODUCT_NOT_FOUND: ErrorDef = ErrorDef::client(
    "inventory.product-not-found",
    404,
    "There is no such product",
    "The tenant has no product with the id in the path.",
    "Look the id up with `GET /api/inventory/products`.",
);

/// The move names a product that does not exist.
pub(crate) static PRODUCT_UNKNOWN: ErrorDef = ErrorDef::client(
    "inventory.product-unknown",
    422,
    "The move names a product that does not exist",
    "The tenant has no product with the id in the field that `field` names.",
    "Create the product first, or correct the id. Of a batch nothing was moved.",
);

/// The product was moved, so it stays.
pub(crate) static PRODUCT_IN_USE: ErrorDef = ErrorDef::client(
    "inventory.product-in-use",
    409,
    "The product has a history",
    "Stock of the product was moved at least once; the journal keeps what it names.",
    "Keep the product, or rename it so that nobody uses it any more.",
);

/// The SKU is in use.
pub(crate) static SKU_TAKEN: ErrorDef = ErrorDef::client(
    "inventory.sku-taken",
    409,
    "The SKU is in use",
    "Another product of the tenant has this SKU; upper and lower case differ.",
    "Use the product that exists, or choose another SKU.",
);

/// There is no such place.
pub(crate) static PLACE_NOT_FOUND: ErrorDef = ErrorDef::client(
    "inventory.place-not-found",
    404,
    "There is no such place",
    "The tenant has no place with the id in the path.",
    "Look the id up with `GET /api/inventory/places`.",
);

/// The move names a place that does not exist.
pub(crate) static PLACE_UNKNOWN: ErrorDef = ErrorDef::client(
    "inventory.place-unknown",
    422,
    "The move names a place that does not exist",
    "The tenant has no place with the id in the field that `field` names.",
    "Create the place first, or correct the id. Of a batch nothing was moved.",
);

/// The place's code is in use.
pub(crate) static PLACE_CODE_TAKEN: ErrorDef = ErrorDef::client(
    "inventory.place-code-taken",
    409,
    "The place's code is in use",
    "Another place of the tenant has this code; upper and lower case differ.",
    "Use the place that exists, or choose another code.",
);

/// There is no such move.
pub(crate) static MOVE_NOT_FOUND: ErrorDef = ErrorDef::client(
    "inventory.move-not-found",
    404,
    "There is no such move",
    "The tenant's journal has no move with the id in the path.",
    "Look the id up with `GET /api/inventory/moves`.",
);

/// There is less on hand than the move takes.
pub(crate) static INSUFFICIENT_STOCK: ErrorDef = ErrorDef::client(
    "inventory.insufficient-stock",
    409,
    "There is less on hand than the move takes",
    "Stock never goes below zero; `detail` says how much is on hand and how much was asked for. What \
     counts for a batch is its net effect on each product at each place. Nothing was moved.",
    "Move less, or record first what came in.",
);

/// There would be more on hand than can be counted.
pub(crate) static EXCESSIVE_STOCK: ErrorDef = ErrorDef::client(
    "inventory.excessive-stock",
    409,
    "There would be more on hand than can be counted",
    "A product's stock at a place has to stay below 2^53. Nothing was moved.",
    "Check the quantity; count in a larger unit.",
);

/// The tenant moves one at a time.
pub(crate) static BATCH_OFF: ErrorDef = ErrorDef::client(
    "inventory.batch-off",
    403,
    "The tenant moves one at a time",
    "The flag `inventory.batch_moves` is off for this tenant.",
    "Use `POST /api/inventory/moves` for each move, or ask the operator to switch the flag on.",
);
