"""Northwind's billing: from orders to invoices and a monthly report."""
