module msa-shop/node/pause

go 1.21
